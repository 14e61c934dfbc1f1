import { setTimeout as delay } from 'node:timers/promises'
import { isConnectionError, isTransientError } from '../store/database.ts'
import type { Logger } from './log.ts'

/**
 * Work that is looked for at least every `everyMs`, and at once when somebody calls `look`: a hint makes it fast, the
 * poll makes it certain. One pass at a time; a failing database is not an error, the next pass tries again.
 */
export class Rounds {
  #pass: () => Promise<void>
  #everyMs: number
  #log: Logger
  #wake: () => void = () => {}
  #stopping = false
  #loop: Promise<void> | null = null
  #asked = false

  constructor(pass: () => Promise<void>, everyMs: number, log: Logger) {
    this.#pass = pass
    this.#everyMs = everyMs
    this.#log = log
  }

  start(): void {
    this.#loop = this.#run()
  }

  look(): void {
    this.#asked = true
    this.#wake()
  }

  async stop(): Promise<void> {
    this.#stopping = true
    this.#wake()
    await this.#loop
  }

  async #run(): Promise<void> {
    while (!this.#stopping) {
      this.#asked = false
      try {
        await this.#pass()
      } catch (error) {
        if (!isConnectionError(error) && !isTransientError(error)) {
          this.#log.error({ problem: String(error) }, 'a round failed')
        }
      }
      if (this.#asked || this.#stopping) continue
      const timer = new AbortController()
      const woken = new Promise<void>((resolve) => {
        this.#wake = resolve
      })
      // Jitter keeps replicas that started together from polling together.
      const pause = this.#everyMs * (0.9 + Math.random() / 5)
      await Promise.race([woken, delay(pause, undefined, { signal: timer.signal }).catch(() => {})])
      timer.abort()
    }
  }
}
