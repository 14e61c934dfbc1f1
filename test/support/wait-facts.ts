import type { WaitFacts } from '../../src/store/diagnosis.ts'

export const AT = '2026-01-01T00:00:00.000Z'
export const RULES = {
  queueTimeoutMs: 3_600_000,
  cancelTimeoutMs: 180_000,
  concurrency: 200,
  recovery: 'auto',
} as const

/** A run that works on a node that is well. */
export const WELL: WaitFacts = {
  ...{ run_id: 'run', status: 'running', detail: null, status_since: AT, now: AT, agent: 'a' },
  ...{ run_at: null, holds_lane: true, lane_key: 'lane', stuck_reason: null, stuck_since: null },
  stuck_call: null,
  ...{ phase: null, tool: null, attempt: 1, last_progress_at: AT, clock: null, clock_at: null },
  paused_ms: 0,
  ...{ cancel_requested_at: null, cancel_since: null, holder: null, ahead: 0, serving: 1 },
  queue: {
    ...{ name: 'default', concurrency: null, active: 0, paused: false },
    ...{ paused_by: null, paused_at: null, paused_reason: null },
  },
  owner: {
    ...{ node_id: 'n1', status: 'serving', last_seen_at: AT, lease_ms: 5_000 },
    ...{ lease_over: false, systemic: null },
  },
  ...{
    active: 1,
    slot_holder: null,
    ended_at: null,
    late_result_at: null,
    error_code: null,
    error_message: null,
    checkpoint_type: null,
  },
  ...{ unknown_calls: [], parent_run_id: null, detached: false, open_children: [] },
  ...{ open_child_count: 0, calls: [], letters: 0, unreported: [], due: false, questions: [] },
}
