import type { Logger } from './log.ts'
import { Rounds } from './rounds.ts'

export interface ReconcilerOptions {
  everyMs: number
  queueTimeoutMs: number
  lateInLine: (limitMs: number, limit: number) => Promise<string[]>
  /** Ends a run that is late in line; false when it is not there any more. */
  expire: (runId: string, limitMs: number) => Promise<boolean>
  log: Logger
}

/** Runs that one look takes up; the next look goes on. */
const BATCH = 500

/**
 * Looks over all runs of all nodes, at the start and every few minutes, for what nobody else would notice. Each decision is
 * made by the chart of its run and counts only if the run is still as it was seen, so two nodes at once do no harm.
 */
export class Reconciler {
  #options: ReconcilerOptions
  #rounds: Rounds
  #stopping = false

  constructor(options: ReconcilerOptions) {
    this.#options = options
    this.#rounds = new Rounds(() => this.#pass(), options.everyMs, options.log)
  }

  start(): void {
    this.#rounds.start()
  }

  async stop(): Promise<void> {
    this.#stopping = true
    await this.#rounds.stop()
  }

  async #pass(): Promise<void> {
    const { queueTimeoutMs, lateInLine, expire, log } = this.#options
    let ended = 0
    for (const runId of await lateInLine(queueTimeoutMs, BATCH)) {
      if (this.#stopping) break
      if (await expire(runId, queueTimeoutMs)) ended += 1
    }
    if (ended > 0) log.info({ runs: ended }, 'runs waited in line for too long and were ended')
  }
}
