import { setTimeout as delay } from 'node:timers/promises'
import { isConnectionError, isTransientError, type Line } from '../store/database.ts'
import { registerNode, renewLease } from '../store/nodes.ts'
import { within } from '../within.ts'

export interface LeaseOptions {
  line: Line
  nodeId: string
  version: string
  leaseMs: number
  monotonicMs: () => number
  /** This epoch was declared dead: its runs belong to others. The new epoch is registered already. */
  onLost(newEpoch: number): void
  /** The database does not answer; told at each renewal that fails for it. */
  /** `forMs`: since the last renewal that was answered. */
  onAway(error: unknown, forMs: number): void
  /** It answers, again or for the first time. */
  onBack(): void
  onError(error: unknown): void
}

/** Pause after a renewal that failed, in milliseconds. */
const RETRY_MS = 150
/** A healthy but busy database gets at least this long to answer, in milliseconds. */
const ANSWER_MS_MIN = 1_000

/**
 * The node's right to act. It is renewed by the database's clock, every third of its length; how long we believe in it
 * is measured by our own monotonic clock *from before the renewal was sent*, so our belief always ends before the
 * database's. That clock runs on while the process is stopped: a thawed process finds its deadline passed before it
 * can do anything.
 *
 * The deadline is shared memory, so that executor threads can check it themselves.
 */
export class Lease {
  /** One Float64: monotonic milliseconds until which effects may start. */
  readonly shared = new SharedArrayBuffer(8)
  #deadline = new Float64Array(this.shared)
  #options: LeaseOptions
  #epoch = 0
  #stopping = new AbortController()
  #waiting: (() => void)[] = []
  #loop: Promise<void> | null = null
  /** Monotonic time since when the database has answered every renewal; null while it does not. */
  #reachableSince: number | null = null
  /** Monotonic time of the last renewal that was answered. */
  #answeredAt = 0

  constructor(options: LeaseOptions) {
    this.#options = options
  }

  get epoch(): number {
    return this.#epoch
  }

  /** True while an effect may start. */
  get held(): boolean {
    return this.#options.monotonicMs() < (this.#deadline[0] ?? 0)
  }

  /** For how long the database has been continuously reachable: nobody is declared dead before that is a whole lease. */
  get reachableForMs(): number {
    return this.#reachableSince === null ? 0 : this.#options.monotonicMs() - this.#reachableSince
  }

  /** Registers the node. @throws when the database does not answer. */
  async start(): Promise<void> {
    await this.#register()
    this.#loop = this.#renewForever()
  }

  /** Resolves when an effect may start: at once while the lease is held, else after the next renewal. */
  whenHeld(): Promise<void> {
    if (this.held) return Promise.resolve()
    return new Promise((resolve) => this.#waiting.push(resolve))
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    await this.#loop
    this.#deadline[0] = 0
  }

  async #register(): Promise<void> {
    const { line, nodeId, version, leaseMs, monotonicMs } = this.#options
    const before = this.#epoch
    const sentAt = monotonicMs()
    const registered = registerNode(line.sql, { nodeId, version, leaseMs })
    this.#epoch = await within(leaseMs, registered, () => line.replace())
    // What the old epoch had is dropped before anything may act under the new one.
    if (before !== 0) this.#options.onLost(this.#epoch)
    this.#renewed(sentAt)
  }

  async #renewForever(): Promise<void> {
    const { signal } = this.#stopping
    const pause = this.#options.leaseMs / 3
    while (!signal.aborted) {
      // After a failure there is no time to lose: what is left of the lease is all there is.
      const next = this.#reachableSince === null ? Math.min(pause, RETRY_MS) : pause
      await delay(next, undefined, { signal }).catch(() => {})
      if (!signal.aborted) await this.#renew()
    }
  }

  async #renew(): Promise<void> {
    const { line, leaseMs, monotonicMs } = this.#options
    const sentAt = monotonicMs()
    try {
      // A renewal that is not answered soon leaves room for another one on a new connection.
      const patience = Math.max(leaseMs / 3, ANSWER_MS_MIN)
      const sent = renewLease(line.sql, this.#epoch, leaseMs)
      const renewed = await within(patience, sent, () => line.replace())
      if (renewed) return this.#renewed(sentAt)
      this.#deadline[0] = 0
      await this.#register()
    } catch (error) {
      this.#reachableSince = null
      if (isConnectionError(error) || isTransientError(error))
        this.#options.onAway(error, monotonicMs() - this.#answeredAt)
      else this.#options.onError(error)
    }
  }

  #renewed(sentAt: number): void {
    this.#answeredAt = sentAt
    this.#deadline[0] = sentAt + this.#options.leaseMs
    if (this.#reachableSince === null) this.#options.onBack()
    this.#reachableSince ??= sentAt
    for (const resolve of this.#waiting.splice(0)) resolve()
  }
}
