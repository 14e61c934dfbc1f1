import { newRecordId } from '../../ids.ts'
import type { AuditDraft } from '../../store/flush.ts'
import type { HostedRow } from '../../store/rows.ts'
import { auditedRun } from '../run/audited.ts'
import type { Caller } from './caller.ts'

/** What the audit trail calls a command of this kind. */
export const actionOf = (kind: string): string =>
  `agent_runtime.${kind === 'interrupt' ? 'interrupt_subagent' : kind}`

/** The audit row of a command that was refused before it was written. */
export const refusedCommand = (
  run: HostedRow,
  caller: Caller,
  kind: string,
  reason: string | undefined,
  code: string,
): AuditDraft => ({
  ...auditOf(run, caller, kind, newRecordId()),
  reason: reason ?? null,
  outcome: 'refused',
  code,
})

/** Of one that is applied by being written, and changes nothing of what is shown of its run. */
export const writtenCommand = (
  run: HostedRow,
  caller: Caller,
  kind: string,
  command_id: string,
): AuditDraft => {
  const audit = auditOf(run, caller, kind, command_id)
  return { ...audit, reason: null, outcome: 'applied', code: null, after: audit.before }
}

const auditOf = (
  run: HostedRow,
  caller: Caller,
  kind: string,
  audit_key: string,
): Omit<AuditDraft, 'reason' | 'outcome' | 'code'> => ({
  audit_key,
  actor: caller.name,
  role: caller.role,
  action: actionOf(kind),
  target: run.run_id,
  run_id: run.run_id,
  request_id: caller.requestId,
  before: auditedRun({ ...run, cancel_requested: run.cancel_requested_at !== null }),
  after: null,
})
