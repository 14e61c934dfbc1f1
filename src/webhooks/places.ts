/** Deliveries under way on a node. */
const PLACES = 64
/** Of one host: if its latest answer was a success, and came within the time below; else the other number. */
const PLACES_OF_PROMPT = 16
const PLACES_OF_OTHERS = 2
const PROMPT_MS = 2_000
/** Hosts whose promptness is remembered. */
const REMEMBERED_MAX = 10_000

/**
 * How many deliveries may be under way, in all and to each host. A receiver that is slow, or does not answer, holds a few
 * places for as long as it takes, and the others go on.
 */
export class Places {
  #taken = new Map<string, number>()
  #prompt = new Set<string>()
  #total = 0

  get free(): number {
    return PLACES - this.#total
  }

  /** Hosts that have all the places that they may have. */
  get full(): string[] {
    return [...this.#taken.keys()].filter((host) => this.freeOf(host) === 0)
  }

  freeOf(host: string): number {
    const most = this.#prompt.has(host) ? PLACES_OF_PROMPT : PLACES_OF_OTHERS
    return Math.max(0, Math.min(this.free, most - (this.#taken.get(host) ?? 0)))
  }

  take(host: string): void {
    this.#taken.set(host, (this.#taken.get(host) ?? 0) + 1)
    this.#total += 1
  }

  /** The host answered, or did not, after so many milliseconds. */
  give(host: string, { ok, ms }: { ok: boolean; ms: number }): void {
    const left = (this.#taken.get(host) ?? 1) - 1
    if (left === 0) this.#taken.delete(host)
    else this.#taken.set(host, left)
    this.#total -= 1
    this.#prompt.delete(host)
    if (!ok || ms > PROMPT_MS) return
    if (this.#prompt.size >= REMEMBERED_MAX) this.#prompt.clear()
    this.#prompt.add(host)
  }
}
