import type { AuditDraft } from '../../store/flush.ts'
import type { Verdict } from '../run/messages.ts'
import type { RecordDraft } from '../run/record-draft.ts'

const OPERATOR = 1

/** Who signs for what the supervisor does by itself. */
export const WATCHDOG = { actor: 'watchdog', role: 'system' } as const

/** Why the verdict was not carried out, in the audit trail. */
const CODES: Record<Verdict['result'], string | null> = {
  ended: null,
  would_end: 'shadow',
  held: 'systemic',
}

/** A verdict is told to operators and audited, carried out or not. */
export function noteVerdict(draft: RecordDraft, verdict: Verdict): void {
  draft.event('watchdog_verdict', OPERATOR, { ...verdict })
  const audit: Pick<AuditDraft, 'actor' | 'role' | 'action' | 'reason' | 'code'> = {
    ...WATCHDOG,
    action: `watchdog.${verdict.action}`,
    reason: verdict.stuck_reason,
    code: CODES[verdict.result],
  }
  draft.audit(audit)
}
