import type { WatchdogClock } from '../../../machines/run-setup.ts'
import { formatDuration, parseDuration } from '../../duration.ts'
import type { WaitFacts } from '../../store/diagnosis.ts'
import { limitOf, type OwnLimits, type WatchdogLimits } from '../supervision/clocks.ts'
import type { AutoTerminate } from '../supervision/watchdog.ts'

/** The settings that a diagnosis is made by: those of the node that is asked, in milliseconds and runs. */
export interface Rules {
  limits: WatchdogLimits
  autoTerminate: AutoTerminate
  queueTimeoutMs: number
  cancelTimeoutMs: number
  /** Active runs of a node. */
  concurrency: number
  /** What becomes of runs whose node is lost. */
  recovery: 'auto' | 'manual'
}

/** The rules of a node with these settings. */
export const diagnosisRules = ({
  watchdog: { limits, autoTerminate },
  queueTimeoutMs,
  cancelTimeoutMs,
  concurrency,
  recovery,
}: Omit<Rules, 'limits' | 'autoTerminate'> & {
  watchdog: Pick<Rules, 'limits' | 'autoTerminate'>
}): Rules => ({ limits, autoTerminate, queueTimeoutMs, cancelTimeoutMs, concurrency, recovery })

/** All that a diagnosis of a run is made of. */
export interface Facts extends WaitFacts {
  rules: Rules
  /** What its agent says of its clocks; null on a node that does not have the agent. */
  agent_limits: OwnLimits | null
}

/** A clock of a run: how long it may be, how long it has been, when it is over. */
export interface Clock {
  limit: number
  current: number
  deadline: string | null
}

/**
 * The clock of the watchdog that is over first, and what the run would be flagged with then. By what the database knows: the
 * pulse of an executor, and which of several calls has told of its progress, its node alone knows. Null: no clock runs.
 */
export function nextClock(facts: Facts): (Clock & { reason: string }) | null {
  const clocks = [silenceOf(facts), turnOf(facts)].filter((clock) => clock !== null)
  return clocks.toSorted((a, b) => (a.deadline < b.deadline ? -1 : 1))[0] ?? null
}

function silenceOf(facts: Facts) {
  const { status, last_progress_at } = facts
  // The children have clocks of their own.
  if (status === 'waiting_on_child' || last_progress_at === null) return null
  if (status === 'waiting_on_tool')
    return clockOf(facts, last_progress_at, ownLimit(facts, 'tool'), 'tool_call.timeout')
  return clockOf(facts, last_progress_at, ownLimit(facts, 'reasoning'), 'reasoning.no_progress')
}

function turnOf(facts: Facts) {
  const { status, session_since, turn_extended_ms } = facts
  // It stands still while children are all that is waited for.
  if (session_since === null || status === 'waiting_on_child') return null
  return clockOf(facts, session_since, ownLimit(facts, 'turn') + turn_extended_ms, 'turn.timeout')
}

function ownLimit({ rules, agent_limits, timeouts }: Facts, clock: keyof OwnLimits): number {
  return limitOf({ own: { agent: agent_limits ?? {}, run: timeouts ?? {} } }, clock, rules.limits)
}

const clockOf = (facts: Facts, since: string, limit: number, name: string) => ({
  ...clockSince(facts, since, limit),
  reason: `${name}(${formatDuration(limit)})`,
})

const clockSince = (facts: Facts, since: string, limit: number) => ({
  limit,
  current: ageMs(facts, since),
  deadline: later(since, limit),
})

const CLOCKS: readonly (readonly [string, WatchdogClock])[] = [
  ['turn.', 'turn'],
  ['executor.', 'executor'],
  ['tool_call.', 'tool'],
]

/** The clock that has found a run stuck. */
export const stuckClock = (stuckReason: string): WatchdogClock =>
  CLOCKS.find(([beginning]) => stuckReason.startsWith(beginning))?.[1] ?? 'reasoning'

/** What it had passed when it was flagged, and since; its deadline is when it is ended for that, if it is. */
export function passedClock(facts: Facts, stuckReason: string): Clock | null {
  const { stuck_since, turn_extended_ms } = facts
  const [, told] = /\((.+)\)$/.exec(stuckReason) ?? []
  if (told === undefined || stuck_since === null) return null
  const extra = stuckClock(stuckReason) === 'turn' ? turn_extended_ms : 0
  const limit = parseDuration(told) + extra
  return { limit, current: limit + ageMs(facts, stuck_since), deadline: endOfStuck(facts) }
}

function endOfStuck(facts: Facts): string | null {
  const { stuck_since, stuck_reason, execution_timeout_override: own, rules } = facts
  const { autoTerminate } = rules
  // While it waits for its children nobody counts, unless its executor is blocked.
  const counts =
    facts.status !== 'waiting_on_child' || stuckClock(stuck_reason ?? '') === 'executor'
  if (!counts) return null
  if (stuck_since === null || autoTerminate.mode === 'shadow') return null
  if (own !== null) return later(stuck_since, parseDuration(own))
  return autoTerminate.mode === 'off' ? null : later(stuck_since, autoTerminate.afterMs)
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

const later = (at: string, ms: number): string => new Date(Date.parse(at) + ms).toISOString()

export const ageMs = ({ now }: Facts, at: string): number =>
  Math.max(0, Date.parse(now) - Date.parse(at))
