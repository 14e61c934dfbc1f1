import { newRecordId } from '../ids.ts'
import type { Caller } from '../runtime/commands.ts'
import type { AuditDraft } from '../store/flush.ts'

/** The audit row of something that a caller did, and which no run decides about. */
export const applied = (caller: Caller, action: string, target: string): AuditDraft => ({
  audit_key: newRecordId(),
  actor: caller.name,
  role: caller.role,
  action,
  target,
  run_id: null,
  reason: null,
  outcome: 'applied',
  code: null,
  request_id: caller.requestId,
})

export const refused = (
  caller: Caller,
  action: string,
  target: string,
  code: string,
): AuditDraft => ({ ...applied(caller, action, target), outcome: 'refused', code })
