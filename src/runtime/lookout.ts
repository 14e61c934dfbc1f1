import type { Database } from '../store/database.ts'
import { anyNodeLost, listNodes } from '../store/nodes.ts'
import { runsWithSignals } from '../store/signals.ts'
import { loadHostedMany, nextDueInMs, ownedRunIds, runsWithMail, whatWaits } from '../store/runs.ts'
import type { Committer } from './commit/committer.ts'
import type { Host } from './run/host.ts'
import type { Lease } from './lease.ts'
import type { Mailroom } from './commands/mailroom.ts'

export interface LookoutOptions {
  database: Database
  host: Host
  committer: Committer
  lease: Lease
  mailroom: Mailroom
  /** The directory lock of the embedded database proves every other node dead. */
  alone: boolean
  leaseMs: number
  concurrency: number
  monotonicMs: () => number
}

/** Runs taken over by one flush. */
export const ADOPT_MAX = 200
/** How often a node looks for what no hint has told it, in milliseconds. */
export const ROUND_MS = 1000
/** How often what the database says we own is held against what we host, even without a cause. */
const RESYNC_MS = 10_000

/**
 * What a node looks for by itself: claimable runs, mail, dead nodes, runs that are due, claims it was not told of. Hints
 * make most of it fast; this makes it certain.
 */
export class Lookout {
  /** Other nodes serve: they want hints. */
  othersServe = false
  /** A commit's reply was lost: it may have claimed runs for us. Or another node has taken some. */
  mustResync = false
  #options: LookoutOptions
  #resyncedAt = 0
  #dueTimer: ReturnType<typeof setTimeout> | null = null

  constructor(options: LookoutOptions) {
    this.#options = options
  }

  async round(): Promise<void> {
    const { database, host, committer, lease, alone, concurrency, monotonicMs } = this.#options
    const reads = database.runtime
    const { epoch } = lease
    host.expireCancels()
    if (this.mustResync || monotonicMs() - this.#resyncedAt > RESYNC_MS) await this.#resync()
    if (await this.#mayDeclareDead())
      committer.adopt({ epoch, all_others: alone, limit: ADOPT_MAX })
    await this.#deliverMail()
    const { due, claimable } = await whatWaits(reads)
    if (due || (claimable && host.busy < concurrency)) committer.claim()
    await this.#armDueTimer()
    this.othersServe =
      database.notifies && (await listNodes(reads)).some((node) => node.epoch !== epoch)
  }

  stop(): void {
    if (this.#dueTimer) clearTimeout(this.#dueTimer)
  }

  /**
   * After an outage every lease looks over: nobody is dead until the database was reachable for a whole lease. A node that is alone
   * has asked for all at its start; where its own lease was late then, nothing came of it.
   */
  async #mayDeclareDead(): Promise<boolean> {
    const { alone, lease, leaseMs, database } = this.#options
    if (!alone && lease.reachableForMs < leaseMs) return false
    return anyNodeLost(database.runtime, lease.epoch)
  }

  async #deliverMail(): Promise<void> {
    const { database, host, lease, mailroom } = this.#options
    await mailroom.round(await runsWithMail(database.runtime, lease.epoch))
    const waiting = host.awaitingSignals
    if (waiting.length === 0) return
    for (const runId of await runsWithSignals(database.runtime, waiting)) host.signalled(runId)
  }

  /** Runs that a commit with a lost reply has claimed for us: ours in the database, unknown here. */
  async #resync(): Promise<void> {
    const { database, host, committer, lease } = this.#options
    const held = [...host.runs].map(({ ledger }) => ledger.runId)
    const ids = await ownedRunIds(database.runtime, lease.epoch)
    // What a flush under way has claimed is known when it is done.
    await committer.settled()
    const unknown = ids.filter((runId) => !host.has(runId))
    const owned = new Set(ids)
    await this.#dropLost(held.filter((runId) => !owned.has(runId)))
    const rows = await loadHostedMany(database.runtime, unknown)
    await committer.settled()
    for (const row of rows) {
      if (row.owner_epoch !== lease.epoch || host.has(row.run_id)) continue
      // The adopter marks what it takes over: such an attempt is lost, a claimed one has yet to start. What has been
      // recorded here since and is here no more is not guessed at: the reconciler asks for its result.
      if (row.line_events.at(-1) === 'run.claimed' && row.record_id === null) host.start(row)
      else if (row.record_id === 'adopted') host.adopt(row, 'session_lost')
    }
    this.mustResync = false
    this.#resyncedAt = this.#options.monotonicMs()
  }

  /** Runs that we still have although they were ended over our head: nothing of them may go on. */
  async #dropLost(runIds: string[]): Promise<void> {
    const { database, host, committer, lease } = this.#options
    if (runIds.length === 0) return
    const rows = await loadHostedMany(database.runtime, runIds)
    // One that has ended by itself is gone when the answer to its commit is known.
    await committer.settled()
    for (const row of rows) if (row.owner_epoch !== lease.epoch) host.drop(row.run_id)
  }

  async #armDueTimer(): Promise<void> {
    const dueInMs = await nextDueInMs(this.#options.database.runtime)
    if (this.#dueTimer) clearTimeout(this.#dueTimer)
    this.#dueTimer = null
    if (dueInMs === null || dueInMs > ROUND_MS * 2) return
    this.#dueTimer = setTimeout(() => this.#options.committer.claim(), Math.max(0, dueInMs) + 1)
  }
}
