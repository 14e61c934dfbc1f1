import type { WatchdogClock } from '../../../machines/run-setup.ts'
import type { WaitFacts } from '../../store/diagnosis.ts'
import { laterBy } from '../supervision/row-clock.ts'
import { sparedClass } from '../supervision/systemic.ts'

/** The settings that a diagnosis is made by: those of the node that is asked, in milliseconds and runs. */
export interface Rules {
  queueTimeoutMs: number
  cancelTimeoutMs: number
  /** Active runs of a node. */
  concurrency: number
  /** What becomes of runs whose node is lost. */
  recovery: 'auto' | 'manual'
}

/** All that a diagnosis of a run is made of. */
export interface Facts extends WaitFacts {
  rules: Rules
}

/** A clock of a run: how long it may be, how long it has been, when it is over. */
export interface Clock {
  limit: number | null
  current: number | null
  deadline: string | null
}

/**
 * What the watchdog of its own node counts with, as its row has it: the clock that it was found by, if it is stuck, and when
 * it is ended for that; else the one that is over first, and what it would be flagged with then. Null: no clock counts.
 */
export function watchdogClock(
  facts: Facts,
): (Clock & { reason: string; since: string | null; call: string | null }) | null {
  const { clock: told, clock_at, now } = facts
  if (told === null || clock_at === null) return null
  const clock = laterBy(told, ageMs(facts, clock_at))
  const { reason, tool_call_id: call, limit_ms: limit, age_ms: current, left_ms } = clock
  return {
    reason,
    call,
    limit,
    current,
    since: current === null ? null : later(now, -current),
    deadline: left_ms === null ? null : later(now, left_ms),
  }
}

const CLOCKS: readonly (readonly [string, WatchdogClock])[] = [
  ['turn.', 'turn'],
  ['executor.', 'executor'],
  ['tool_call.', 'tool'],
]

/** The clock that has found a run stuck. */
export const stuckClock = (stuckReason: string): WatchdogClock =>
  CLOCKS.find(([beginning]) => stuckReason.startsWith(beginning))?.[1] ?? 'reasoning'

/** Why it is not ended though it is stuck for too long: its node spares all of its kind. Null: nobody would be spared. */
export function spared({ owner, clock }: Facts, stuckReason: string): string | null {
  if (!owner?.systemic || clock?.left_ms === null) return null
  return sparedClass(owner.systemic, stuckClock(stuckReason))
}

/** When a run in line is given up. In a paused queue that clock stands still. */
export function endOfLine({ queue, status_since, paused_ms, rules }: Facts): string | null {
  return queue.paused ? null : later(status_since, rules.queueTimeoutMs + paused_ms)
}

/** How long its cancel has been on its way; null while that waits for its children. */
export function cancelClock(facts: Facts): Clock | null {
  const { cancel_since, rules } = facts
  return cancel_since === null ? null : clockSince(facts, cancel_since, rules.cancelTimeoutMs)
}

const clockSince = (facts: Facts, since: string, limit: number): Clock => ({
  limit,
  current: ageMs(facts, since),
  deadline: later(since, limit),
})

const later = (at: string, ms: number): string => new Date(Date.parse(at) + ms).toISOString()

export const ageMs = ({ now }: Facts, at: string): number =>
  Math.max(0, Date.parse(now) - Date.parse(at))
