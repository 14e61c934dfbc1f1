import type { WatchdogClock } from '../../../machines/run-setup.ts'
import { formatDuration, parseDuration } from '../../duration.ts'
import type { Probe } from '../../executors/local/session.ts'
import type { RunStatus } from '../../store/rows.ts'
import type { MessageOf, RunMessage, Verdict } from '../run/messages.ts'
import { type Held, isSystemic } from './systemic.ts'

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

type WatchdogMessage =
  | MessageOf<'stuck.noted'>
  | MessageOf<'stuck.cleared'>
  | MessageOf<'verdict.noted'>

/** A hosted run as the watchdog sees it; times are monotonic milliseconds. */
export interface Watched {
  runId: string
  status: RunStatus
  /** The clock that has found it stuck; null while all is well. */
  stuckClock: WatchdogClock | null
  stuckReason: string | null
  /** Since when it is stuck. */
  stuckSince: number | null
  /** A verdict on that was told. */
  judged: boolean
  /** How long this run may be stuck, such as `"30m"`, whatever holds for others. */
  override: string | null
  attemptSince: number
  /** Since when it has not moved; of a batch of tool calls the one that has been silent for longest. */
  silentSince: number
  /** Since its executor has shown a sign of life; 0 where it cannot be blocked. */
  executorSilentMs: number
  /** Told with a verdict; what is unknown is never by itself a reason to end a run. */
  probe: Probe
  /** The agent's limits, then the run's own: the later ones count. */
  own: readonly OwnLimits[]
  /** How much longer its turn may take than the clock says. */
  turnExtraMs: number
  /** Does not count so many milliseconds. */
  forgive(ms: number): void
  send(message: WatchdogMessage): void
}

export interface WatchdogOptions {
  /** Asked anew at each look. */
  runs(): Iterable<Watched>
  limits: WatchdogLimits
  /** Whether runs that are stuck for so long are ended, or only told of. */
  autoTerminate: AutoTerminate
  /** The database is away: whatever its runs do, nothing of it can be recorded. */
  isAway: () => boolean
  /** Ends a run by force. */
  end(runId: string, messages: RunMessage[]): Promise<unknown>
  monotonicMs: () => number
  now: () => number
}

export type AutoTerminate =
  | { readonly mode: 'off' }
  | { readonly mode: 'on' | 'shadow'; readonly afterMs: number }

/** What a clock has found. */
interface Finding {
  clock: WatchdogClock
  stuck_reason: string
  limit_ms: number
  silentMs: number
}

/** A run that is stuck for longer than it may be. */
interface Due {
  run: Watched
  clock: WatchdogClock
  evidence: Omit<Verdict, 'result'>
}

/**
 * Looks at the runs of this node, and flags those that are stuck: a flag is for people to see, and goes by itself when the
 * run moves again. Only where that is asked for it ends what has been stuck for too long, and only while most others are
 * well. When it looks is its supervisor's to say.
 */
export class Watchdog {
  #options: WatchdogOptions
  #lookedAt: number

  constructor(options: WatchdogOptions) {
    this.#options = options
    this.#lookedAt = options.monotonicMs()
  }

  /** So long it was not the runs that were silent, it was this process. */
  forgive(ms: number): void {
    for (const run of this.#options.runs()) run.forgive(ms)
  }

  /** Answers what it has spared because too many would have been ended at once. */
  look(): Held[] {
    const { limits, monotonicMs, now, isAway } = this.#options
    const at = monotonicMs()
    const sinceLook = at - this.#lookedAt
    this.#lookedAt = at
    if (isAway()) {
      this.forgive(sinceLook)
      return []
    }
    const runs = [...this.#options.runs()]
    const due: Due[] = []
    for (const run of runs) {
      const finding = findingOf(run, limits, at)
      // Only what the probe found passes without the run having moved: its executor answers again.
      if (run.stuckClock === 'executor' && !executorOf(run, limits))
        run.send({ type: 'stuck.cleared' })
      else if (finding && outranks(finding.clock, run.stuckClock)) {
        const { clock, stuck_reason, limit_ms, silentMs } = finding
        const since = new Date(now() - silentMs).toISOString()
        run.send({ type: 'stuck.noted', clock, stuck_reason, limit_ms, since })
      } else due.push(...this.#due(run, at))
    }
    const held = heldOf(runs, due)
    for (const one of due) this.#judge(one, held)
    return held
  }

  /** Whether it is stuck for too long, if that is to count. */
  #due(run: Watched, at: number): Due[] {
    const { stuckSince, stuckReason, stuckClock, override, executorSilentMs, probe } = run
    if (stuckSince === null || stuckReason === null || stuckClock === null) return []
    const limit_ms =
      override === null ? limitFor(this.#options.autoTerminate) : parseDuration(override)
    const stuck_ms = Math.round(at - stuckSince)
    if (limit_ms === null || stuck_ms <= limit_ms) return []
    const found = { clock: stuckClock, stuck_reason: stuckReason, limit_ms, stuck_ms }
    const executor_silent_ms = Math.round(executorSilentMs)
    return [
      {
        run,
        clock: stuckClock,
        evidence: { action: 'auto_terminate', ...found, executor_silent_ms, probe },
      },
    ]
  }

  #judge({ run, clock, evidence }: Due, held: readonly Held[]): void {
    const isShadow = this.#options.autoTerminate.mode === 'shadow'
    const isHeld = held.some(({ rule }) => rule === EVERYBODY || rule === clock)
    if (!isShadow && !isHeld) {
      const verdict = { ...evidence, result: 'ended' as const }
      const recycled = { type: 'run.recycled', forced: false, by: 'watchdog', verdict } as const
      void this.#options.end(run.runId, [recycled])
    } else if (!run.judged)
      run.send({
        type: 'verdict.noted',
        verdict: { ...evidence, result: isShadow ? 'would_end' : 'held' },
      })
  }
}

const EVERYBODY = 'all'

/**
 * Classes that hold fire: the runs that a clock is for, and all together. Counted are those that are stuck, not only those
 * whose time is over by now: an outage does not end its runs one second after the other either.
 */
function heldOf(runs: readonly Watched[], due: readonly Due[]): Held[] {
  if (due.length === 0) return []
  const stuck = runs.filter((run) => run.stuckClock !== null)
  const clocks = [...new Set(due.map(({ clock }) => clock))]
  const classes: Held[] = [
    { rule: EVERYBODY, runs: stuck.length, of: runs.length },
    ...clocks.map((rule) => ({
      rule,
      runs: stuck.filter((run) => run.stuckClock === rule).length,
      of: runs.filter((run) => isWatchedBy(rule, run)).length,
    })),
  ]
  return classes.filter((one) => isSystemic(one.runs, one.of))
}

/** A run that the clock is for, or that it has found: a stuck tool call may be beside a running one. */
function isWatchedBy(clock: WatchdogClock, { status, stuckClock }: Watched): boolean {
  if (clock === 'turn' || clock === 'executor' || stuckClock === clock) return true
  return clock === 'tool' ? status === 'waiting_on_tool' : THINKING.has(status)
}

const THINKING: ReadonlySet<RunStatus> = new Set(['running', 'resuming'])

const limitFor = (auto: AutoTerminate): number | null => (auto.mode === 'off' ? null : auto.afterMs)

/** The turn's clock counts whatever else was found; of the others the first one that found something. */
const outranks = (clock: WatchdogClock, found: WatchdogClock | null): boolean =>
  found === null || (clock === 'turn' && found !== 'turn')

function findingOf(run: Watched, limits: WatchdogLimits, at: number): Finding | undefined {
  // It was asked to end: the clock of the cancel counts then.
  if (run.status === 'cancel_requested') return executorOf(run, limits)
  return turnOf(run, limits, at) ?? executorOf(run, limits) ?? silenceOf(run, limits, at)
}

function turnOf(run: Watched, limits: WatchdogLimits, at: number): Finding | undefined {
  const limit_ms = limitOf(run, 'turn', limits.turn)
  const silentMs = at - run.attemptSince
  if (silentMs <= limit_ms + run.turnExtraMs) return undefined
  return {
    clock: 'turn',
    stuck_reason: `turn.timeout(${formatDuration(limit_ms)})`,
    limit_ms,
    silentMs,
  }
}

/** The executor's own pulse answers, not the code in it: a thread in an endless loop has none. */
function executorOf(run: Watched, limits: WatchdogLimits): Finding | undefined {
  const { executorSilentMs: silentMs } = run
  const limit_ms = limits.executor
  if (silentMs <= limit_ms) return undefined
  const stuck_reason = `executor.unresponsive(${formatDuration(limit_ms)})`
  return { clock: 'executor', stuck_reason, limit_ms, silentMs }
}

function silenceOf(run: Watched, limits: WatchdogLimits, at: number): Finding | undefined {
  // The children have clocks of their own.
  if (run.status === 'waiting_on_child') return undefined
  const silentMs = at - run.silentSince
  const isTool = run.status === 'waiting_on_tool'
  const clock = isTool ? 'tool' : 'reasoning'
  const limit_ms = limitOf(run, clock, limits[clock])
  if (silentMs <= limit_ms) return undefined
  const name = isTool ? 'tool_call.timeout' : 'reasoning.no_progress'
  return { clock, stuck_reason: `${name}(${formatDuration(limit_ms)})`, limit_ms, silentMs }
}

/** What a run may take by this clock: as it says itself, or its agent, or else as all may. */
export function limitOf(
  run: Pick<Watched, 'own'>,
  clock: keyof OwnLimits,
  general: number,
): number {
  const own = run.own.findLast((limits) => limits[clock] !== undefined)?.[clock]
  return own === undefined ? general : parseDuration(own)
}
