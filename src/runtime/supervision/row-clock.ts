import type { RowClock } from '../../store/rows.ts'
import {
  type AutoTerminate,
  CLOCKS,
  type Clocked,
  type Flagged,
  nextOf,
  patienceWith,
  reasonOf,
  type Running,
  standsStill,
  type WatchdogLimits,
  type WatchdogRules,
} from './clocks.ts'

/** What the watchdog counts with, for the row of the run: any node can tell by it what the watchdog will do, and when. */
export function rowClockOf(
  run: Clocked & Flagged,
  { limits, autoTerminate }: WatchdogRules,
  at: number,
): RowClock | null {
  const { stuckReason, stuckCall } = run
  if (stuckReason !== null) {
    const found = foundBy(run, limits, at)
    return {
      reason: stuckReason,
      tool_call_id: stuckCall,
      ...(found ? usedOf(found, at) : { limit_ms: null, age_ms: null }),
      left_ms: leftOf(run, autoTerminate, at),
      stands: standsStill(run),
    }
  }
  const next = nextOf(run, limits, at)
  if (!next) return null
  return {
    reason: reasonOf(next),
    tool_call_id: next.tool_call_id,
    ...usedOf(next, at),
    left_ms: Math.round(next.over - at),
    stands: false,
  }
}

/** The clock that has found it stuck, as it is now. */
function foundBy(run: Clocked & Flagged, limits: WatchdogLimits, at: number): Running | undefined {
  const { stuckClock, stuckCall } = run
  if (stuckClock === null) return undefined
  return CLOCKS[stuckClock](run, limits, at).find((one) => one.tool_call_id === stuckCall)
}

const usedOf = ({ limit_ms, extended_ms, since }: Running, at: number) => ({
  limit_ms: Math.round(limit_ms + extended_ms),
  age_ms: Math.round(at - since),
})

function leftOf(run: Flagged, autoTerminate: AutoTerminate, at: number): number | null {
  const patienceMs = patienceWith(run, autoTerminate)
  if (patienceMs === null || autoTerminate.mode === 'shadow') return null
  return Math.round((run.stuckSince ?? at) + patienceMs - at)
}

/** The same so much later, if nothing moves meanwhile. */
export function laterBy(clock: RowClock, ms: number): RowClock {
  const { stands, age_ms, left_ms } = clock
  if (stands) return clock
  return {
    ...clock,
    age_ms: age_ms === null ? null : age_ms + ms,
    left_ms: left_ms === null ? null : left_ms - ms,
  }
}
