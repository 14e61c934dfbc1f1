import { formatDuration } from '../../duration.ts'
import type { RunMessage, Verdict } from './messages.ts'
import type { RecordDraft } from './record-draft.ts'

const OPERATOR = 1

/** Who signs for what the supervisor does by itself. */
export const WATCHDOG = { actor: 'watchdog', role: 'system' } as const

/** Why the verdict was not carried out, in the audit trail, which calls that refused; null: it was. */
const CODES: Record<Verdict['result'], string | null> = {
  ended: null,
  would_end: 'shadow',
  held: 'systemic',
}

/** A verdict is told to operators and audited, carried out or not. */
export function noteVerdict(draft: RecordDraft, verdict: Verdict): void {
  draft.event('watchdog_verdict', OPERATOR, { ...verdict })
  const code = CODES[verdict.result]
  draft.audit({
    ...WATCHDOG,
    action: `watchdog.${verdict.action}`,
    reason: verdict.stuck_reason,
    outcome: code === null ? 'applied' : 'refused',
    code,
  })
}

/** What ends a run that was asked to cancel and did not come to its next boundary in time. */
export const staleCancel = (limit_ms: number, age_ms: number): RunMessage[] => [
  {
    type: 'verdict.noted',
    verdict: verdictOf('force_cancel', 'cancel', 'cancel.unacknowledged', limit_ms, { age_ms }),
  },
  { type: 'cancel.expired' },
]

/** A verdict of the reconciler, about a run of that age. */
export function verdictOf(
  action: Verdict['action'],
  clock: Verdict['clock'],
  what: string,
  limit_ms: number,
  { age_ms }: { age_ms: number },
): Verdict {
  return {
    action,
    result: 'ended',
    clock,
    stuck_reason: limit_ms === 0 ? what : `${what}(${formatDuration(limit_ms)})`,
    limit_ms,
    stuck_ms: Math.round(age_ms),
    executor_silent_ms: null,
    probe: action === 'recover' ? 'absent' : null,
  }
}
