/** How often an answer that takes long asks whether its caller may still have it, in milliseconds. */
const LOOK_MS = 2_500

/** Kept while an answer is open: its token may be revoked meanwhile, its session or JWT may end. */
export class Vigil {
  #holds: () => Promise<boolean>
  #lost = new AbortController()
  #timer: ReturnType<typeof setInterval>
  #looking = false

  constructor(holds: () => Promise<boolean>) {
    this.#holds = holds
    this.#timer = setInterval(() => void this.#look(), LOOK_MS)
  }

  /** Aborted as soon as the caller would not be let in any more. */
  get lost(): AbortSignal {
    return this.#lost.signal
  }

  end(): void {
    clearInterval(this.#timer)
  }

  async #look(): Promise<void> {
    // While the database is away, questions must not pile up.
    if (this.#looking) return
    this.#looking = true
    if (!(await this.#holds())) this.#lost.abort()
    this.#looking = false
  }
}
