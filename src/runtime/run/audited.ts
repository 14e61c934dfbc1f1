import type { RunRow } from '../../store/rows.ts'

/** Of a run, what actions change: what an audit row shows of it before and after. */
export const auditedRun = (
  run: Pick<
    RunRow,
    'status' | 'detail' | 'attempt' | 'stuck_reason' | 'turn_extended_ms' | 'error_code'
  > & { cancel_requested: boolean },
) => ({
  status: run.status,
  detail: run.detail,
  attempt: run.attempt,
  stuck_reason: run.stuck_reason,
  cancel_requested: run.cancel_requested,
  turn_extended_ms: run.turn_extended_ms,
  error_code: run.error_code,
})
