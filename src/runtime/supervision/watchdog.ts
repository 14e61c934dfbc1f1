import type { WatchdogClock } from '../../../machines/run-setup.ts'
import type { Probe } from '../../executors/local/session.ts'
import type { RunStatus } from '../../store/rows.ts'
import type { MessageOf, RunMessage, Verdict } from '../run/messages.ts'
import {
  type Clocked,
  findingOf,
  type Flagged,
  patienceWith,
  reasonOf,
  type WatchdogLimits,
  type WatchdogRules,
} from './clocks.ts'
import { EVERYBODY, type Held, isSystemic } from './systemic.ts'

type WatchdogMessage =
  | MessageOf<'stuck.noted'>
  | MessageOf<'stuck.cleared'>
  | MessageOf<'verdict.noted'>

/** A hosted run as the watchdog sees it; times are monotonic milliseconds. */
export interface Watched extends Clocked, Flagged {
  runId: string
  /** A verdict on its being stuck was told. */
  judged: boolean
  /** Told with a verdict; what is unknown is never by itself a reason to end a run. */
  probe: Probe
  /** Does not count so many milliseconds. */
  forgive(ms: number): void
  send(message: WatchdogMessage): void
  /** What counts for it may have moved: its row is to say so. */
  tell(): void
}

export interface WatchdogOptions extends WatchdogRules {
  /** Asked anew at each look. */
  runs(): Iterable<Watched>
  /** The database is away: whatever its runs do, nothing of it can be recorded. */
  isAway: () => boolean
  /** Ends a run by force. */
  end(runId: string, messages: RunMessage[]): Promise<unknown>
  monotonicMs: () => number
  now: () => number
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
    const { limits, monotonicMs, isAway } = this.#options
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
      // Only what the probe found passes without the run having moved: its executor answers again.
      if (run.stuckClock === 'executor' && !isSilent(run, limits))
        run.send({ type: 'stuck.cleared' })
      else if (!this.#find(run, at)) due.push(...this.#due(run, at))
    }
    const held = heldOf(runs, due)
    for (const one of due) this.#judge(one, held)
    for (const run of runs) run.tell()
    return held
  }

  /** Between two looks at all of them, at one that is about to go on. */
  lookAt(run: Watched): void {
    const { isAway, monotonicMs } = this.#options
    if (!isAway()) this.#find(run, monotonicMs())
  }

  /** What was found first stays for as long as it is true: it says why, what comes on top of it does not. */
  #find(run: Watched, at: number): boolean {
    if (run.stuckClock !== null) return false
    const finding = findingOf(run, this.#options.limits, at)
    if (!finding) return false
    const { clock, tool_call_id, limit_ms } = finding
    const stuck_reason = reasonOf(finding)
    const since = new Date(this.#options.now() - (at - finding.since)).toISOString()
    run.send({ type: 'stuck.noted', clock, stuck_reason, tool_call_id, limit_ms, since })
    return true
  }

  /** Whether it is stuck for too long, if that is to count. */
  #due(run: Watched, at: number): Due[] {
    const { stuckSince, stuckReason, stuckClock, executorSilentMs, probe } = run
    if (stuckSince === null || stuckReason === null || stuckClock === null) return []
    const limit_ms = patienceWith(run, this.#options.autoTerminate)
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

const isSilent = ({ begun, executorSilentMs }: Watched, { executor }: WatchdogLimits): boolean =>
  begun && executorSilentMs > executor
