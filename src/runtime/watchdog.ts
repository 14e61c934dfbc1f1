import type { WatchdogClock } from '../../machines/run-setup.ts'
import { formatDuration, parseDuration } from '../duration.ts'
import type { RunStatus } from '../store/rows.ts'
import type { MessageOf } from './messages.ts'

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
  | MessageOf<'run.recycled'>

/** A hosted run as the watchdog sees it; times are monotonic milliseconds. */
export interface Watched {
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
  intervalMs: number
  limits: WatchdogLimits
  /** Whether runs that are stuck for so long are ended, or only told of. */
  autoTerminate: AutoTerminate
  monotonicMs: () => number
  now: () => number
}

/** A look that comes so much later than it should says more about this process than about its runs. */
const LATE_MS = 1_000

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

/**
 * Looks at the runs of this node again and again, and flags those that are stuck: a flag is for people to see, and goes by
 * itself when the run moves again. Only where that is asked for it ends what has been stuck for too long.
 */
export class Watchdog {
  #options: WatchdogOptions
  #lookedAt: number
  #timer: ReturnType<typeof setInterval> | null = null

  constructor(options: WatchdogOptions) {
    this.#options = options
    this.#lookedAt = options.monotonicMs()
  }

  start(): void {
    this.#lookedAt = this.#options.monotonicMs()
    this.#timer = setInterval(() => this.look(), this.#options.intervalMs)
  }

  stop(): void {
    if (this.#timer) clearInterval(this.#timer)
  }

  look(): void {
    const { limits, monotonicMs, now, intervalMs } = this.#options
    const at = monotonicMs()
    const late = at - this.#lookedAt - intervalMs
    this.#lookedAt = at
    if (late > intervalMs + LATE_MS) {
      // It was not the runs that were silent, it was this process: frozen, or blocked.
      for (const run of this.#options.runs()) run.forgive(late)
      return
    }
    for (const run of this.#options.runs()) {
      const finding = findingOf(run, limits, at)
      // Only what the probe found passes without the run having moved: its executor answers again.
      if (run.stuckClock === 'executor' && !executorOf(run, limits))
        run.send({ type: 'stuck.cleared' })
      else if (finding && outranks(finding.clock, run.stuckClock)) {
        const { clock, stuck_reason, limit_ms, silentMs } = finding
        const since = new Date(now() - silentMs).toISOString()
        run.send({ type: 'stuck.noted', clock, stuck_reason, limit_ms, since })
      } else this.#judge(run, at)
    }
  }

  /** Ends what is stuck for too long, if that is wanted. */
  #judge(run: Watched, at: number): void {
    const { autoTerminate } = this.#options
    const { stuckSince, stuckReason, stuckClock, override, executorSilentMs } = run
    if (stuckSince === null || stuckReason === null || stuckClock === null) return
    const limit_ms = override === null ? limitFor(autoTerminate) : parseDuration(override)
    const stuck_ms = Math.round(at - stuckSince)
    if (limit_ms === null || stuck_ms <= limit_ms) return
    const found = { clock: stuckClock, stuck_reason: stuckReason, limit_ms, stuck_ms }
    const evidence = { ...found, executor_silent_ms: Math.round(executorSilentMs) }
    if (autoTerminate.mode !== 'shadow') {
      const verdict = { ...evidence, result: 'ended' as const }
      run.send({ type: 'run.recycled', forced: false, by: 'watchdog', verdict })
    } else if (!run.judged)
      run.send({ type: 'verdict.noted', verdict: { ...evidence, result: 'would_end' } })
  }
}

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

function limitOf(run: Watched, clock: keyof OwnLimits, general: number): number {
  const own = run.own.findLast((limits) => limits[clock] !== undefined)?.[clock]
  return own === undefined ? general : parseDuration(own)
}
