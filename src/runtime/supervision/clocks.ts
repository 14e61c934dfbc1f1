import type { WatchdogClock } from '../../../machines/run-setup.ts'
import { formatDuration, parseDuration } from '../../duration.ts'
import type { RunStatus } from '../../store/rows.ts'
import type { CallVitals } from '../run/vitals.ts'

/** Limits in milliseconds. */
export interface WatchdogLimits {
  /** A short step (a chunk of reasoning, a change of phase) without progress. */
  reasoning: number
  /** A tool call without progress. */
  tool: number
  /** A whole turn: an attempt. */
  turn: number
  /** An executor without a sign of life. */
  executor: number
}

/** Limits that an agent or a run gives by itself, such as `"30s"`. */
export type OwnLimits = { [C in 'reasoning' | 'tool' | 'turn']?: string | undefined }

/** What the clocks read of a run; times are monotonic milliseconds. */
export interface Clocked {
  status: RunStatus
  /** Its executor has begun it: no clock counts before. */
  begun: boolean
  /** When its turn began, not counting what the clock of the turn leaves out. */
  turnSince: number
  /** How much longer its turn may take than the clock says. */
  turnExtraMs: number
  /** That comes on top of the limit, or of this time where it is later: its turn was over already when it was extended. */
  turnLimitFrom: number
  /** Since when it has not moved. */
  movedAt: number
  /** Tool calls in flight. */
  calls: readonly CallVitals[]
  /** Since its executor has shown a sign of life; 0 where it cannot be blocked. */
  executorSilentMs: number
  own: {
    readonly agent: OwnLimits
    readonly run: OwnLimits
    /** Of the runs above it. */
    readonly above?: OwnLimits
  }
}

/** What the clock of auto-termination reads of a run; times are monotonic milliseconds. */
export interface Flagged {
  status: RunStatus
  /** The clock that has found it stuck; null while all is well. */
  stuckClock: WatchdogClock | null
  stuckReason: string | null
  /** The tool call that it is about, if it is about one. */
  stuckCall: string | null
  /** Since when it is stuck. */
  stuckSince: number | null
  /** How long this run may be stuck, such as `"30m"`, whatever holds for others. */
  override: string | null
  /** The same of the runs above it. */
  overrideAbove?: string | null
}

export type AutoTerminate =
  | { readonly mode: 'off' }
  | { readonly mode: 'on' | 'shadow'; readonly afterMs: number }

/** What a watchdog goes by. */
export interface WatchdogRules {
  limits: WatchdogLimits
  /** Whether runs that are stuck for so long are ended, or only told of. */
  autoTerminate: AutoTerminate
}

/** A clock of a run, running or over; times are monotonic milliseconds. */
export interface Running {
  clock: WatchdogClock
  /** What it is called where it has found something. */
  name: string
  tool_call_id: string | null
  /** What it is set to. */
  limit_ms: number
  /** What was added to that. */
  extended_ms: number
  since: number
  /** It has found something when this is past. */
  over: number
}

/** How long a call that ends by a time-out of its own may take to do so. */
const ENDING_MS = 2_000
/** An executor that lives has a pulse many times within this: its clock is of interest only when it has none. */
const PULSE_MS = 500

/**
 * The clocks that count in a status, the one first that is told of first: that which says most about why. The children of a run have clocks of their own, and
 * so has whoever these wait for. The clock of the cancel counts where a run was asked to end.
 */
const COUNTING: Partial<Record<RunStatus, readonly WatchdogClock[]>> = {
  running: ['executor', 'reasoning', 'turn'],
  waiting_on_tool: ['executor', 'tool', 'turn'],
  waiting_on_child: ['executor'],
  cancel_requested: ['executor'],
}

/** What a run is flagged with that this clock has found stuck. */
export const reasonOf = ({ name, limit_ms }: Running): string =>
  `${name}(${formatDuration(limit_ms)})`

/** The clock that has found something: of several the one that is told of first. */
export const findingOf = (run: Clocked, limits: WatchdogLimits, at: number): Running | undefined =>
  counting(run, limits, at).find(({ over }) => at > over)

/** The clock that is over first, if nothing moves until then. Undefined: none counts. */
export function nextOf(run: Clocked, limits: WatchdogLimits, at: number): Running | undefined {
  const [first] = counting(run, limits, at)
    .filter(({ clock }) => clock !== 'executor' || run.executorSilentMs > PULSE_MS)
    .toSorted((a, b) => a.over - b.over)
  return first
}

function counting(run: Clocked, limits: WatchdogLimits, at: number): Running[] {
  if (!run.begun) return []
  return (COUNTING[run.status] ?? []).flatMap((clock) => CLOCKS[clock](run, limits, at))
}

/** A clock of a run, also where it does not count at present: for each tool call in flight one, the most silent first. */
export const CLOCKS: Readonly<
  Record<WatchdogClock, (run: Clocked, limits: WatchdogLimits, at: number) => Running[]>
> = {
  turn(run, limits) {
    const limit_ms = limitOf(run, 'turn', limits)
    const { turnSince: since, turnLimitFrom, turnExtraMs } = run
    const over = Math.max(since + limit_ms, turnLimitFrom) + turnExtraMs
    return [running('turn', 'turn.timeout', { limit_ms, since, over })]
  },
  // The executor's own pulse answers, not the code in it: a thread in an endless loop has none.
  executor({ executorSilentMs }, { executor: limit_ms }, at) {
    const since = at - executorSilentMs
    return [running('executor', 'executor.unresponsive', { limit_ms, since })]
  },
  reasoning(run, limits) {
    const limit_ms = limitOf(run, 'reasoning', limits)
    return [running('reasoning', 'reasoning.no_progress', { limit_ms, since: run.movedAt })]
  },
  tool(run, limits) {
    return run.calls
      .toSorted((a, b) => a.movedAt - b.movedAt)
      .map((call) => {
        const { limit_ms, graceMs } = limitOfCall(run, call, limits)
        const { tool_call_id, movedAt: since } = call
        const over = since + limit_ms + graceMs
        const one = running('tool', 'tool_call.timeout', { limit_ms, since, over })
        return { ...one, extended_ms: 0, tool_call_id }
      })
  },
}

const running = (
  clock: WatchdogClock,
  name: string,
  { limit_ms, since, over = since + limit_ms }: { limit_ms: number; since: number; over?: number },
): Running => ({
  clock,
  name,
  tool_call_id: null,
  limit_ms,
  extended_ms: over - since - limit_ms,
  since,
  over,
})

/** The later one counts: for all, of the agent, of the tool, of the run. */
function limitOfCall(
  run: Clocked,
  { timeout_ms }: CallVitals,
  limits: WatchdogLimits,
): { limit_ms: number; graceMs: number } {
  return timeout_ms === null || run.own.run.tool !== undefined
    ? { limit_ms: limitOf(run, 'tool', limits), graceMs: 0 }
    : { limit_ms: timeout_ms, graceMs: ENDING_MS }
}

/**
 * What a run may take by this clock: as it says itself, or its agent, or else as all may. Whoever gave a run more time meant what
 * it delegates as well, as to wait for that is its work; less time is meant for its own work alone.
 */
function limitOf(
  { own }: Pick<Clocked, 'own'>,
  clock: keyof OwnLimits,
  limits: WatchdogLimits,
): number {
  const given = own.run[clock] ?? own.agent[clock]
  const limit_ms = given === undefined ? limits[clock] : parseDuration(given)
  const above = own.above?.[clock]
  if (above === undefined || own.run[clock] !== undefined) return limit_ms
  return Math.max(limit_ms, parseDuration(above))
}

/**
 * How long a run may be stuck, in milliseconds; null: as long as it likes. Others are at work for one that waits for its
 * children: how long it is stuck counts on when they are done. A blocked executor would not hear that.
 */
export function patienceWith(run: Flagged, autoTerminate: AutoTerminate): number | null {
  if (standsStill(run)) return null
  if (run.override !== null) return parseDuration(run.override)
  if (autoTerminate.mode === 'off') return null
  const { afterMs } = autoTerminate
  return run.overrideAbove ? Math.max(afterMs, parseDuration(run.overrideAbove)) : afterMs
}

/** What it was found by, and how long it is stuck, do not count on for the moment. */
export const standsStill = ({ status, stuckClock }: Flagged): boolean =>
  status === 'waiting_on_child' && stuckClock !== 'executor'
