import type { Session } from '../../executors/local/session.ts'
import type { Watched } from '../supervision/watchdog.ts'
import type { Ledger } from './ledger.ts'
import type { RunMessage } from './messages.ts'
import type { Vitals } from './vitals.ts'

/** A hosted run, as far as the watchdog is interested. */
interface Hosted {
  readonly ledger: Ledger
  readonly vitals: Vitals
  readonly session: Session | null
  send(message: RunMessage): void
  tellClock(): void
}

/** A run as the watchdog sees it at this moment. */
export function watchedOf(hosted: Hosted, now: number): Watched {
  const { ledger, vitals, session } = hosted
  const { status, row, fields, chart } = ledger
  const { stuck_clock, stuck_reason, stuck_call } = chart.context
  const own = row.options
  vitals.look(status, now)
  vitals.flag(stuck_clock, now)
  const { stuck, begun, turnSince, turnLimitFrom, movedAt, calls } = vitals
  return {
    runId: ledger.runId,
    status,
    stuckClock: stuck_clock,
    stuckReason: stuck_reason,
    stuckCall: stuck_call,
    stuckSince: stuck?.at ?? null,
    judged: stuck?.judged ?? false,
    override: own.execution_timeout_override ?? null,
    overrideAbove: own.above?.execution_timeout_override ?? null,
    // What is about to be begun anew has not begun, whatever is left of the session before.
    begun: begun && status !== 'resuming',
    turnSince,
    turnExtraMs: fields.turn_extended_ms,
    turnLimitFrom,
    movedAt,
    calls,
    executorSilentMs: session?.silentMs ?? 0,
    probe: session?.probe() ?? 'unknown',
    own: {
      agent: session?.timeouts ?? {},
      run: own.timeouts ?? {},
      above: own.above?.timeouts ?? {},
    },
    forgive: (ms) => vitals.forgive(ms),
    send: (message) => {
      if (message.type === 'verdict.noted' && vitals.stuck) vitals.stuck.judged = true
      hosted.send(message)
    },
    tell: () => hosted.tellClock(),
  }
}
