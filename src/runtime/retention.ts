import { setTimeout as delay } from 'node:timers/promises'
import type { Logger } from './log.ts'
import { Rounds } from './rounds.ts'

/** How often a node looks for runs that are to be forgotten. */
const LOOK_MS = 60_000
/** Run trees that one transaction deletes: it holds its locks for some ten milliseconds. */
const BATCH = 200
/** Between two of them, so that deleting is never what the database is busy with. */
const PAUSE_MS = 100

export interface RetentionOptions {
  /** Deletes at most so many run trees, and answers how many runs went. */
  deleteExpired(limit: number): Promise<number>
  log: Logger
}

/** Deletes runs that ended long ago, a few at a time. */
export class Retention {
  #options: RetentionOptions
  #rounds: Rounds
  #stopping = new AbortController()

  constructor(options: RetentionOptions) {
    this.#options = options
    this.#rounds = new Rounds(() => this.#pass(), LOOK_MS, options.log)
  }

  start(): void {
    this.#rounds.start()
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#rounds.stop()
  }

  async #pass(): Promise<void> {
    let deleted = 0
    while (!this.#stopping.signal.aborted) {
      const runs = await this.#options.deleteExpired(BATCH)
      deleted += runs
      if (runs === 0) break
      await delay(PAUSE_MS, undefined, { signal: this.#stopping.signal }).catch(() => {})
    }
    if (deleted > 0) this.#options.log.info({ runs: deleted }, 'runs were deleted (retention)')
  }
}
