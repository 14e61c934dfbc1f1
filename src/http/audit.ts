import { newRecordId } from '../ids.ts'
import type { Caller } from '../runtime/commands/commands.ts'
import type { AuditDraft } from '../store/flush.ts'

/** Of the target, what the action has changed: small, and never a secret. */
export type Change = Pick<AuditDraft, 'before' | 'after'>

const NOTHING: Change = { before: null, after: null }

/** The audit row of something that a caller did, and which no run decides about. */
export const applied = (
  caller: Caller,
  action: string,
  target: string,
  { before, after }: Change = NOTHING,
): AuditDraft => ({
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
  before,
  after,
})

export const refused = (
  caller: Caller,
  action: string,
  target: string,
  code: string,
): AuditDraft => ({ ...applied(caller, action, target), outcome: 'refused', code })
