/** Posting, reading and steering runs. */
import { z } from 'zod'
import { endpoint } from './endpoint.ts'
import {
  attempt,
  checkpoint,
  commanded,
  diagnosis,
  event,
  journal,
  listOf,
  resumePreview,
  run,
  runSummary,
  toolResult,
} from './objects.ts'
import { runBody } from './run-body.ts'
import {
  durationMs,
  flag,
  id,
  instant,
  json,
  limit,
  numberCursor,
  reason,
  runCursor,
  sequence,
  shown,
  status,
  visibility,
  wait,
} from './values.ts'

const RUNS_PER_BATCH_MAX = 1000
const CREATES = ['unknown_agent', 'unknown_queue', 'lane_busy', 'idempotency_conflict'] as const
const page = z.strictObject({ limit, cursor: numberCursor })

export const postRun = endpoint({
  id: 'postRun',
  method: 'POST',
  path: '/runs',
  tag: 'Runs',
  role: 'service',
  does: 'posts a run: 202; with an `Idempotency-Key` seen before 200 and the same run',
  keyed: true,
  body: runBody,
  answers: { 202: run, 200: run },
  headers: { Location: 'the path of the run' },
  refuses: CREATES,
})

export const postRuns = endpoint({
  id: 'postRuns',
  method: 'POST',
  path: '/runs/batch',
  tag: 'Runs',
  role: 'service',
  does: 'posts up to 1,000 runs, all or nothing',
  keyed: true,
  body: z.strictObject({ runs: z.array(runBody).min(1).max(RUNS_PER_BATCH_MAX) }),
  answers: {
    202: z.object({ runs: z.array(runSummary) }),
    200: z.object({ runs: z.array(runSummary) }),
  },
  refuses: CREATES,
})

/** `status=running,queued`. */
const statuses = z
  .string()
  .transform((text) => text.split(','))
  .pipe(z.array(status))
  .optional()
  .meta(shown({ type: 'string', description: 'one or several, separated by commas' }))

export const listRuns = endpoint({
  id: 'listRuns',
  method: 'GET',
  path: '/runs',
  tag: 'Runs',
  role: 'viewer',
  does: 'lists runs, newest first; filters `status agent conversation_id queue lane_key stuck orphan q since`, keyset `cursor`',
  query: z.strictObject({
    limit,
    cursor: runCursor,
    status: statuses,
    agent: id.optional(),
    conversation_id: id.optional(),
    queue: id.optional(),
    lane_key: id.optional(),
    stuck: flag,
    orphan: flag,
    q: id.optional(),
    since: instant.optional(),
  }),
  answers: {
    200: listOf('runs', runSummary).extend({
      cursor: z
        .number()
        .int()
        .meta({ description: 'for an event stream that goes on from this list' }),
    }),
  },
})

export const getRun = endpoint({
  id: 'getRun',
  method: 'GET',
  path: '/runs/{run_id}',
  tag: 'Runs',
  role: 'viewer',
  does: 'the run; `?wait=30s` answers when it is terminal',
  query: z.strictObject({ wait }),
  answers: { 200: run },
})

export const listRunEvents = endpoint({
  id: 'listRunEvents',
  method: 'GET',
  path: '/runs/{run_id}/events',
  tag: 'Runs',
  role: 'viewer',
  does: 'its committed events as JSON, after `after_sequence`',
  query: z.strictObject({
    limit,
    cursor: numberCursor,
    after_sequence: sequence.default(0),
    visibility,
  }),
  answers: { 200: listOf('events', event) },
})

export const listCheckpoints = endpoint({
  id: 'listCheckpoints',
  method: 'GET',
  path: '/runs/{run_id}/checkpoints',
  tag: 'Runs',
  role: 'operator',
  does: 'the boundaries that it can be forked from; it is resumed from the latest',
  query: page,
  answers: { 200: listOf('checkpoints', checkpoint) },
})

export const listToolResults = endpoint({
  id: 'listToolResults',
  method: 'GET',
  path: '/runs/{run_id}/tool-results',
  tag: 'Runs',
  role: 'operator',
  does: 'its idempotency envelope: tool calls, steps and model calls with their outcomes',
  query: page,
  answers: { 200: listOf('tool_results', toolResult) },
})

export const listChildren = endpoint({
  id: 'listChildren',
  method: 'GET',
  path: '/runs/{run_id}/children',
  tag: 'Runs',
  role: 'operator',
  does: 'the runs that it delegated',
  query: z.strictObject({ limit, cursor: runCursor }),
  answers: { 200: listOf('children', runSummary) },
})

export const getJournal = endpoint({
  id: 'getJournal',
  method: 'GET',
  path: '/runs/{run_id}/journal',
  tag: 'Runs',
  role: 'operator',
  does: 'the journal that it keeps: that of its conversation, or its own for a child run',
  answers: { 200: journal },
})

export const listAttempts = endpoint({
  id: 'listAttempts',
  method: 'GET',
  path: '/runs/{run_id}/attempts',
  tag: 'Runs',
  role: 'operator',
  does: 'its stays in active, and how each ended',
  query: page,
  answers: { 200: listOf('attempts', attempt) },
})

export const getDiagnosis = endpoint({
  id: 'getDiagnosis',
  method: 'GET',
  path: '/runs/{run_id}/diagnosis',
  tag: 'Runs',
  role: 'operator',
  does: 'why it is where it is: the chain of what it waits for, since when, and what would unblock it',
  answers: { 200: diagnosis },
})

export const previewResume = endpoint({
  id: 'previewResume',
  method: 'GET',
  path: '/runs/{run_id}/resume-preview',
  tag: 'Runs',
  role: 'operator',
  does: 'what a resume would replay, which calls it would make again or asks about, delegations with their child runs, what blocks it; a result that came after the run was ended by force',
  answers: { 200: resumePreview },
})

export const extendRun = endpoint({
  id: 'extendRun',
  method: 'POST',
  path: '/runs/{run_id}/extend',
  tag: 'Runs',
  role: 'operator',
  audits: 'agent_runtime.extend',
  does: 'gives its turns more time than the watchdog would',
  keyed: true,
  body: z.strictObject({ by: durationMs, reason }),
  answers: { 202: commanded },
  refuses: ['not_active'],
})

export const forkRun = endpoint({
  id: 'forkRun',
  method: 'POST',
  path: '/runs/{run_id}/fork',
  tag: 'Runs',
  role: 'operator',
  audits: 'run.fork',
  does: 'makes a new run from a checkpoint of this one, in a lane of its own: calls recorded up to there are replayed, later ones are made anew; `input` replaces its own',
  keyed: true,
  body: z.strictObject({ checkpoint_id: id, input: json.optional(), reason }),
  answers: { 202: run, 200: run },
  headers: { Location: 'the path of the new run' },
  refuses: ['unknown_tool_call', 'not_forkable', 'unknown_agent', 'idempotency_conflict'],
})

const resolution = z.strictObject({
  outcome: z.enum(['succeeded', 'failed', 'retry']),
  result: json.optional(),
})

export const cancelRun = endpoint({
  id: 'cancelRun',
  method: 'POST',
  path: '/runs/{run_id}/cancel',
  tag: 'Runs',
  role: 'service',
  own: true,
  audits: 'agent_runtime.cancel',
  does: 'cancels it at its next safe boundary; `?wait=5s` for the terminal state',
  keyed: true,
  query: z.strictObject({ wait }),
  body: z.strictObject({ reason }),
  answers: { 202: commanded },
  refuses: ['not_cancellable'],
})

export const respond = endpoint({
  id: 'respond',
  method: 'POST',
  path: '/runs/{run_id}/respond',
  tag: 'Runs',
  role: 'service',
  own: true,
  audits: 'agent_runtime.respond',
  does: 'answers the question it waits on',
  keyed: true,
  query: z.strictObject({ wait }),
  body: z.strictObject({ answer: json, token_id: z.string().max(255).optional() }),
  answers: { 202: commanded },
  refuses: ['not_waiting', 'ambiguous_answer', 'waits_for_signal'],
})

export const resumeRun = endpoint({
  id: 'resumeRun',
  method: 'POST',
  path: '/agent-runs/{run_id}/resume',
  tag: 'Runs',
  role: 'service',
  own: true,
  audits: 'agent_runtime.resume',
  does: 'puts a failed or timed-out run back in line, to go on from its records; `resolutions` settle calls of unknown outcome, which a 409 names in `unknown_calls`',
  keyed: true,
  query: z.strictObject({ wait }),
  body: z.strictObject({ reason, resolutions: z.record(id, resolution).optional() }),
  answers: { 202: commanded },
  also: [{ media: 'text/html', says: 'with `Accept: text/html`: the panel of `agent-status`' }],
  refuses: ['not_resumable', 'unknown_tool_call'],
})
