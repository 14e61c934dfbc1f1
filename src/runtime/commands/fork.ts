import type { RunMachine } from '../../../machines/run.ts'
import { newRunId } from '../../ids.ts'
import type { Json } from '../../json.ts'
import type { CheckpointRow } from '../../store/events.ts'
import type { AuditDraft, RunDraft } from '../../store/flush.ts'
import type { EnvelopeThen } from '../../store/forks.ts'
import type { CheckpointType, EncodedChart, HostedRow, RunOptions } from '../../store/rows.ts'
import { encodeChart, newChart } from '../run/codec.ts'
import { Refusal } from '../../errors.ts'

/** Calls that a fork takes over, and bytes of them as they are stored: they are copied while no other commit can be. */
const CALLS_MAX = 10_000
const BYTES_MAX = 16_000_000

/** A checked request for a fork. */
export interface ForkRequest {
  source: HostedRow
  checkpoint: CheckpointRow
  created_by: string
  idempotency_key: string | null
  request_hash: string | null
  traceparent: string | null
  /** Undefined: that of the source. */
  input: Json | undefined
  /** The audit row of the fork, by the id of the run that it makes. */
  audit: (runId: string) => AuditDraft
}

/**
 * The run that a fork makes: what its source is, with the calls that were settled at the checkpoint, alone in its lane,
 * reporting to nobody. It begins like a run that was handed over before its code ran: resuming, in its first attempt.
 */
export function forkDraft(machine: RunMachine, request: ForkRequest): RunDraft {
  const { source, checkpoint, created_by, idempotency_key } = request
  const run_id = newRunId()
  const { checkpoint_id, sequence } = checkpoint
  return {
    run_id,
    conversation_id: source.conversation_id,
    parent_run_id: null,
    root_run_id: run_id,
    agent: source.agent,
    surface: source.surface === 'child' ? 'api' : source.surface,
    created_by,
    owner: source.owner,
    lane_key: `fork:${run_id}`,
    lane_policy: 'enqueue',
    front: false,
    queue: source.queue,
    priority: source.priority,
    run_at: null,
    chart: chartOf(machine, source.chart),
    idempotency_key,
    interrupt_command_id: null,
    input: request.input === undefined ? source.input : request.input,
    metadata: source.metadata,
    options: optionsOf(request, { run_id: source.run_id, checkpoint_id }),
    fork: {
      run_id: source.run_id,
      sequence,
      type: typeOf(checkpoint),
      audit: request.audit(run_id),
    },
  }
}

function chartOf(machine: RunMachine, { context }: EncodedChart): EncodedChart {
  const { hold_lane_on_human = false } = context as { hold_lane_on_human?: boolean }
  const chart = encodeChart(newChart(machine, { delayed: false, hold_lane_on_human }))
  return { ...chart, context: { ...(chart.context as object), attempt: 1, handed_over: true } }
}

function optionsOf(
  { source, request_hash, traceparent }: ForkRequest,
  forked_from: NonNullable<RunOptions['forked_from']>,
): RunOptions {
  const { timeouts, execution_timeout_override, above } = source.options
  return {
    ...(timeouts === undefined ? {} : { timeouts }),
    ...(above === undefined ? {} : { above }),
    ...(execution_timeout_override === undefined ? {} : { execution_timeout_override }),
    ...(request_hash === null ? {} : { request_hash }),
    ...(traceparent === null ? {} : { traceparent }),
    forked_from,
  }
}

/** A pause or an end is not taken over: what is, are the results before it. */
function typeOf({ type }: CheckpointRow): CheckpointType {
  return type === 'human_pause' || type === 'final' ? 'tool_result' : (type as CheckpointType)
}

const NAMED_MAX = 10

/**
 * @throws Refusal unknown_tool_call, when an unsafe call had begun whose outcome nobody knows; not_forkable, when it cannot
 *   be told which calls belong to the checkpoint, or when they are too many
 */
export function checkEnvelope(checkpoint: CheckpointRow, envelope: EnvelopeThen): void {
  // The first one: no call of a run comes before it.
  if (checkpoint.type === 'input') return
  const { run_id, checkpoint_id } = checkpoint
  const { calls, bytes, undated, unknown_calls } = envelope
  if (unknown_calls.length > 0) {
    const names = unknown_calls.map(({ tool_call_id, tool }) => `${tool_call_id} (${tool})`)
    const more = names.length > NAMED_MAX ? ` and ${names.length - NAMED_MAX} more` : ''
    throw new Refusal(
      'unknown_tool_call',
      `the calls ${names.slice(0, NAMED_MAX).join(', ')}${more} had begun by ${checkpoint_id} and have no outcome yet, so a fork might repeat them: wait for their end, settle them by respond or resume, or fork from an earlier checkpoint`,
      { unknown_calls },
    )
  }
  if (undated > 0) {
    throw new Refusal(
      'not_forkable',
      `${run_id} has calls of an earlier version of runlane, which did not keep to which checkpoint they belong: fork from its input checkpoint`,
    )
  }
  if (calls > CALLS_MAX || bytes > BYTES_MAX) {
    throw new Refusal(
      'not_forkable',
      `${calls} calls with ${bytes} bytes belong to ${checkpoint_id}, and a fork takes over no more than ${CALLS_MAX} and ${BYTES_MAX}`,
    )
  }
}
