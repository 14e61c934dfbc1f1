/**
 * How long what was found counts without another look, in milliseconds. With the time between two looks of a stream it
 * is what a revocation takes to be effective everywhere: less than five seconds.
 */
const FRESH_MS = 1_500
const MAX = 1_000

/** What was found in the database lately, so that not every request asks it. */
export class Lately<T> {
  #found = new Map<string, { value: T; until: number }>()

  /** What was found, unless it is too long ago. */
  get(key: string): T | undefined {
    const known = this.#found.get(key)
    return known && known.until > performance.now() ? known.value : undefined
  }

  /** Whether it was there at the last look, however long ago. */
  knows(key: string): boolean {
    return this.#found.has(key)
  }

  /** Answers `value`, which counts for `mostMs` at most. */
  keep(key: string, value: T, mostMs = FRESH_MS): T {
    if (this.#found.size >= MAX && !this.#found.has(key)) this.#found.clear()
    this.#found.set(key, { value, until: performance.now() + Math.min(FRESH_MS, mostMs) })
    return value
  }

  forget(key: string): void {
    this.#found.delete(key)
  }

  /** The next look at each goes to the database. */
  expire(): void {
    for (const known of this.#found.values()) known.until = 0
  }
}
