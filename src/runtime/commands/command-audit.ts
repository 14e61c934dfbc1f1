import { newRecordId } from '../../ids.ts'
import type { AuditDraft } from '../../store/flush.ts'
import type { HostedRow, RunRow } from '../../store/rows.ts'
import type { Caller } from './command-desk.ts'

/** What the audit trail calls a command of this kind. */
export const actionOf = (kind: string): string =>
  `agent_runtime.${kind === 'interrupt' ? 'interrupt_subagent' : kind}`
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

/** The audit row of a command that was refused before it was written. */
export const refusedCommand = (
  run: HostedRow,
  caller: Caller,
  kind: string,
  reason: string | undefined,
  code: string,
): AuditDraft => ({
  audit_key: newRecordId(),
  actor: caller.name,
  role: caller.role,
  action: actionOf(kind),
  target: run.run_id,
  run_id: run.run_id,
  reason: reason ?? null,
  outcome: 'refused',
  code,
  request_id: caller.requestId,
  before: auditedRun({ ...run, cancel_requested: run.cancel_requested_at !== null }),
  after: null,
})
