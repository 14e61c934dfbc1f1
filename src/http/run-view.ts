import { cancelOf } from '../runtime/run/cancelled.ts'
import { resumeBlocker } from '../runtime/run/resume.ts'
import { isTerminal } from '../store/rows.ts'
import type { ListedRun, WholeRun } from '../store/runs.ts'

/** The run object of the contract. */
export const toRun = (row: WholeRun) => ({
  ...toSummary(row),
  input: row.input,
  output: row.output,
  cancel: cancelOf(row.cancel),
})

/** The run as lists have it: without `input`, `output` and `cancel`. */
export function toSummary(row: ListedRun) {
  const blocker = isTerminal(row.status) ? resumeBlocker(row) : null
  const ended = isTerminal(row.status)
  return {
    run_id: row.run_id,
    conversation_id: row.conversation_id,
    parent_run_id: row.parent_run_id,
    root_run_id: row.root_run_id,
    forked_from: row.forked_from,
    agent: row.agent,
    surface: row.surface,
    created_by: row.created_by,
    owner: row.owner,
    status: row.status,
    detail: row.detail,
    lane_key: row.lane_key,
    queue: row.queue,
    priority: row.priority,
    attempt: row.attempt,
    node_id: row.node_id,
    phase: row.phase,
    saying: row.saying,
    tool: row.tool,
    stuck_reason: row.stuck_reason,
    orphan: row.orphan,
    cancel_requested: row.cancel_requested_at !== null,
    // The chain of providers comes later: until then the first model is the only rung.
    tier: row.model === null ? null : 1,
    model: row.model,
    created_at: row.created_at,
    started_at: row.started_at,
    last_heartbeat_at: row.last_heartbeat_at,
    last_progress_at: row.last_progress_at,
    ended_at: row.ended_at,
    age_ms: Math.round(row.age_ms),
    error_message: row.error_message,
    error_code: row.error_code,
    current_checkpoint_id: row.checkpoint_id,
    metadata: { ...row.metadata, resume_available: ended && blocker === null },
    resume_blocker: ended ? blocker : null,
    trace_id: row.traceparent?.split('-')[1] ?? null,
    children: row.children,
    usage: { input_tokens: row.input_tokens, output_tokens: row.output_tokens },
  }
}
