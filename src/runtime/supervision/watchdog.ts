import type { WatchdogClock } from '../../../machines/run-setup.ts'
import { parseDuration } from '../../duration.ts'
import type { Probe } from '../../executors/local/session.ts'
import type { RunStatus } from '../../store/rows.ts'
import type { MessageOf, RunMessage, Verdict } from '../run/messages.ts'
import { type Clocked, executorOf, findingOf, type WatchdogLimits } from './clocks.ts'
import { type Held, isSystemic } from './systemic.ts'

type WatchdogMessage =
  | MessageOf<'stuck.noted'>
  | MessageOf<'stuck.cleared'>
  | MessageOf<'verdict.noted'>

/** A hosted run as the watchdog sees it; times are monotonic milliseconds. */
export interface Watched extends Clocked {
  runId: string
  /** The clock that has found it stuck; null while all is well. */
  stuckClock: WatchdogClock | null
  stuckReason: string | null
  /** The tool call that it is about, if it is about one. */
  stuckCall: string | null
  /** Since when it is stuck. */
  stuckSince: number | null
  /** A verdict on that was told. */
  judged: boolean
  /** How long this run may be stuck, such as `"30m"`, whatever holds for others. */
  override: string | null
  /** Told with a verdict; what is unknown is never by itself a reason to end a run. */
  probe: Probe
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
        const { silentMs, ...told } = finding
        const since = new Date(now() - silentMs).toISOString()
        run.send({ type: 'stuck.noted', ...told, since })
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
    // Others are at work for it: how long it is stuck counts on when they are done. A blocked executor would not hear that.
    if (run.status === 'waiting_on_child' && stuckClock !== 'executor') return []
    const limit_ms =
      override === null ? limitFor(this.#options.autoTerminate) : parseDuration(override)
    const stuck_ms = Math.round(at - stuckSince)
    if (limit_ms === null || stuck_ms <= limit_ms) return []
    const found = {
      clock: stuckClock,
      stuck_reason: stuckReason,
      tool_call_id: run.stuckCall,
      limit_ms,
      stuck_ms,
    }
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
