import { setTimeout as pause } from 'node:timers/promises'

/** The control's clock must tick at least this often for it to be a judge, in milliseconds. */
const SHARP_MS = 50

export interface Lag {
  /** From when the event was not yet committed, so at most, until it arrived, in milliseconds. */
  readonly ms: number
  /** The control looked at the log all that time, at least every 50 ms. */
  readonly judged: boolean
}

/**
 * How long after its commit an event reaches a reader of this process. The control asks the database again and again for
 * its newest event: an event is younger than the start of the last query that did not see it. Where the control itself
 * did not come to ask, because this process or the whole machine stood still, it can't say whose fault a lag was, and does
 * not judge that event.
 */
export class LagControl {
  #newest: () => Promise<number>
  #looks: { at: number; last: number }[] = []
  #arrivals: { id: number; at: number }[] = []
  #stopped = false
  #loop: Promise<void>

  /** `newest`: the id of the newest event that the database shows. */
  constructor(newest: () => Promise<number>) {
    this.#newest = newest
    this.#loop = this.#look()
  }

  arrived(id: number): void {
    this.#arrivals.push({ id, at: performance.now() })
  }

  /** All lags so far, in order of arrival; stops the control. */
  async lags(): Promise<Lag[]> {
    this.#stopped = true
    await this.#loop
    const looks = this.#looks
    return this.#arrivals.map(({ id, at }) => {
      const after = looks.findIndex(({ last }) => last >= id)
      const from = looks[Math.max(after - 1, 0)]?.at ?? at
      const end = looks.findIndex((look) => look.at >= at)
      const during = looks.slice(Math.max(after - 1, 0), end === -1 ? undefined : end + 1)
      const gaps = during.slice(1).map((look, n) => look.at - (during[n]?.at ?? look.at))
      return { ms: at - from, judged: after > 0 && end !== -1 && Math.max(0, ...gaps) <= SHARP_MS }
    })
  }

  async #look(): Promise<void> {
    while (!this.#stopped) {
      const at = performance.now()
      this.#looks.push({ at, last: await this.#newest() })
      await pause(2)
    }
    // Arrivals of the last moment lie between two looks as well.
    this.#looks.push({ at: performance.now(), last: Number.POSITIVE_INFINITY })
  }
}

/** `p50 1 · p99 9 · max 12`, rounded. */
export const distribution = (values: readonly number[]): string => {
  const sorted = values.toSorted((a, b) => a - b)
  const at = (share: number): string =>
    (sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0).toFixed(1)
  return `p50 ${at(0.5)} · p95 ${at(0.95)} · p99 ${at(0.99)} · max ${at(1)}`
}
