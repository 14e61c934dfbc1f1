import { monitorEventLoopDelay } from 'node:perf_hooks'

const RESOLUTION_MS = 20
const WINDOW_MS = 10_000

/** How late the event loop is, in seconds, over windows of ten seconds: the same for everyone who asks. */
export class EventLoopDelay {
  #histogram = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
  #timer = setInterval(() => this.#turn(), WINDOW_MS)
  p99 = 0
  max = 0

  constructor() {
    this.#histogram.enable()
    this.#timer.unref()
  }

  close(): void {
    clearInterval(this.#timer)
    this.#histogram.disable()
  }

  #turn(): void {
    // It measures from one look to the next: what is beyond its own pause is the delay.
    const seconds = (ns: number): number => Math.max(0, ns / 1e9 - RESOLUTION_MS / 1000)
    this.p99 = seconds(this.#histogram.percentile(99))
    this.max = seconds(this.#histogram.max)
    this.#histogram.reset()
  }
}
