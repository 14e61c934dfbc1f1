import type { WatchdogClock } from '../../machines/run-setup.ts'
import { formatDuration } from '../duration.ts'
import type { MessageOf } from './messages.ts'

/** A hosted run as the watchdog sees it. */
export interface Watched {
  /** The clock that has found it stuck; null while all is well. */
  stuckClock: WatchdogClock | null
  /** Milliseconds since the executor that runs it has shown a sign of life; 0 where it cannot be blocked. */
  executorSilentMs: number
  send(message: MessageOf<'stuck.noted'> | MessageOf<'stuck.cleared'>): void
}

export interface WatchdogOptions {
  /** Asked anew at each look. */
  runs(): Iterable<Watched>
  intervalMs: number
  executorMs: number
  now: () => number
}

/**
 * Looks at the runs of this node again and again, and flags those that are stuck. It never ends one: a flag is for
 * people to see, and goes by itself when the run does.
 */
export class Watchdog {
  #options: WatchdogOptions
  #timer: ReturnType<typeof setInterval> | null = null

  constructor(options: WatchdogOptions) {
    this.#options = options
  }

  start(): void {
    this.#timer = setInterval(() => this.look(), this.#options.intervalMs)
  }

  stop(): void {
    if (this.#timer) clearInterval(this.#timer)
  }

  look(): void {
    for (const run of this.#options.runs()) this.#probe(run)
  }

  /** The executor's own pulse answers, not the code in it: a thread in an endless loop has none. */
  #probe(run: Watched): void {
    const { executorMs, now } = this.#options
    const silent = run.executorSilentMs > executorMs
    if (silent && run.stuckClock === null) {
      run.send({
        type: 'stuck.noted',
        stuck_reason: `executor.unresponsive(${formatDuration(executorMs)})`,
        clock: 'executor',
        limit_ms: executorMs,
        since: new Date(now() - run.executorSilentMs).toISOString(),
      })
    }
    if (!silent && run.stuckClock === 'executor') run.send({ type: 'stuck.cleared' })
  }
}
