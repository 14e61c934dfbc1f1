/** The objects of the answers. */
import { z } from 'zod'
import { GATES } from '../../runtime/diagnosis/gates.ts'
import { VISIBILITIES } from '../../store/rows.ts'
import { json, jsonObject, nextCursor, status, time } from './values.ts'

const text = z.string()
const count = z.number().int()

const runFields = {
  run_id: text,
  conversation_id: text,
  parent_run_id: text.nullable(),
  root_run_id: text,
  forked_from: z
    .object({ run_id: text, checkpoint_id: text })
    .nullable()
    .meta({ description: 'of a fork: where it comes from; that run may have been deleted since' }),
  agent: text,
  surface: text,
  created_by: text,
  owner: text.nullable(),
  status,
  detail: text.nullable(),
  lane_key: text,
  queue: text,
  priority: count,
  attempt: count,
  node_id: text.nullable(),
  phase: text.nullable(),
  saying: text.nullable(),
  tool: text.nullable(),
  stuck_reason: text.nullable().meta({ description: 'what the watchdog found' }),
  orphan: z.boolean(),
  cancel_requested: z.boolean(),
  tier: count.nullable(),
  model: text.nullable(),
  created_at: time,
  started_at: time.nullable(),
  last_heartbeat_at: time.nullable(),
  last_progress_at: time.nullable(),
  ended_at: time.nullable(),
  age_ms: count,
  error_message: text.nullable(),
  error_code: text.nullable(),
  current_checkpoint_id: text.nullable(),
  metadata: jsonObject.meta({ description: "the caller's, and `resume_available`" }),
  resume_blocker: text.nullable(),
  trace_id: text.nullable(),
  children: count,
  usage: z.object({ input_tokens: count, output_tokens: count }),
}
const moment = z.object({ at: time, by: text })
/** How far its cancel has come. */
const cancel = z
  .object({
    reason: text.nullable(),
    requested: moment.meta({ description: 'when it was written, and who asked' }),
    delivered: moment
      .nullable()
      .meta({ description: 'when it was in the run, and the node that brought it there' }),
    acknowledged: moment.nullable().meta({
      description:
        'when its `executor` came to its boundary (`runtime`: no code of it ran); null when it was stopped hard or lost',
    }),
    confirmed: moment
      .nullable()
      .meta({ description: 'when it was over, by the `runtime` or a `hard stop`' }),
  })
  .meta({ id: 'Cancel' })

/** As lists and the snapshot have it. */
export const runSummary = z.object(runFields).meta({ id: 'RunSummary' })
export const run = z
  .object({ ...runFields, input: json, output: json, cancel: cancel.nullable() })
  .meta({ id: 'Run' })

export const event = z
  .object({
    id: count,
    event_type: text,
    run_id: text,
    conversation_id: text,
    sequence: count,
    visibility: z.enum(VISIBILITIES),
    payload: jsonObject,
    created_at: time,
  })
  .meta({ id: 'Event' })

export const checkpoint = z
  .object({ checkpoint_id: text, run_id: text, type: text, sequence: count, created_at: time })
  .meta({ id: 'Checkpoint' })

export const toolResult = z
  .object({
    run_id: text,
    tool_call_id: text,
    provider_call_id: text.nullable(),
    position: count,
    kind: z.enum(['tool', 'step', 'model']),
    tool: text,
    input: json.meta({
      description: 'of a tool call; the beginning of its JSON text when it is long',
    }),
    effects: z.enum(['none', 'idempotent', 'unsafe']).nullable(),
    outcome: z.enum(['started', 'succeeded', 'failed']),
    result: json,
    error_message: text.nullable(),
    attempt: count,
    started_at: time.nullable(),
    finished_at: time.nullable(),
    duration_ms: count.nullable(),
  })
  .meta({ id: 'ToolResult' })

export const attempt = z
  .object({
    attempt: count,
    started_at: time,
    ended_at: time.nullable(),
    outcome: text
      .nullable()
      .meta({ description: 'the status that it led to; null while it goes on' }),
    detail: text.nullable(),
  })
  .meta({ id: 'Attempt' })

export const journal = z
  .object({
    journal_key: text,
    content: jsonObject,
    run_id: text.nullable(),
    updated_at: time.nullable(),
  })
  .meta({ id: 'Journal' })

export const commanded = z
  .object({
    command: z.object({
      command_id: text,
      kind: text,
      status: z.enum(['pending', 'applied', 'refused']),
      outcome: text.nullable(),
    }),
    run: run.nullable(),
  })
  .meta({ id: 'Commanded' })

export const statechart = z
  .object({
    machine: text,
    version: count,
    value: text.nullable(),
    since: time.nullable(),
    history: z.array(z.object({ sequence: count, from: text.nullable(), to: text, at: time })),
    can: z.array(text).meta({ description: 'events that it accepts now' }),
    svg_url: text,
  })
  .meta({ id: 'Statechart' })

export const node = z
  .object({
    node_id: text,
    epoch: count,
    status: text,
    version: text,
    started_at: time,
    last_seen_at: time,
    active_runs: count,
    systemic: text.nullable().meta({
      description:
        'what its supervisor spares because too much would be ended at once; null: nothing',
    }),
  })
  .meta({ id: 'Node' })

export const diagnosis = z
  .object({
    summary: text.meta({ description: 'one plain sentence' }),
    causes: z.array(
      z.object({
        gate: z.enum(GATES),
        run_id: text,
        since: time.nullable(),
        deadline: time.nullable().meta({
          description:
            'when its clock is over, by what the database knows: of what works, when it counts as stuck unless it moves; of what is in line, when it is given up; of a question, when it expires; of what is stuck, when it is ended for that; null: never, or not known',
        }),
        holder: text
          .nullable()
          .meta({ description: 'the run, call, token, queue, node or person that it waits for' }),
        limit: count
          .nullable()
          .meta({ description: 'of a clock in milliseconds, of a queue or of nodes in runs' }),
        current: count.nullable().meta({
          description:
            'what counts against the limit: how long it has been silent, or how many runs there are',
        }),
        evidence: text,
        action: text.nullable(),
      }),
    ),
  })
  .meta({ id: 'Diagnosis' })

const child = text.optional().meta({ description: 'of a delegation: the run that it made' })

export const resumePreview = z
  .object({
    resume_available: z.boolean(),
    resume_blocker: text.nullable(),
    checkpoint: checkpoint.nullable().meta({ description: 'from which it would go on' }),
    replayed: z
      .array(
        z.object({
          tool_call_id: text,
          kind: text,
          tool: text,
          outcome: text,
          child_run_id: child,
        }),
      )
      .meta({
        description:
          'calls that are not made again; a delegation that is `started` waits on for its child, or finds the report that it has not read',
      }),
    unknown: z
      .array(
        z.object({
          tool_call_id: text,
          kind: text,
          tool: text,
          effects: text.nullable(),
          asks: z.boolean(),
          child_run_id: child,
        }),
      )
      .meta({
        description:
          'calls that had begun and have no outcome; those that ask need a resolution, the others are made again: a delegation, whose child has ended only because this run did, with a new child',
      }),
    late_result: z.object({ at: time, output: json }).nullable().meta({
      description:
        'what came of it after it was ended by force, as data: nothing takes it over, and a resume goes on from the recorded calls without it',
    }),
  })
  .meta({ id: 'ResumePreview' })

/** A list as all of them are: the things by their plural, and where it goes on. */
export const listOf = <N extends string, S extends z.ZodType>(name: N, of: S) =>
  z.object({ [name]: z.array(of), next_cursor: nextCursor } as Record<N, z.ZodArray<S>> & {
    next_cursor: typeof nextCursor
  })
