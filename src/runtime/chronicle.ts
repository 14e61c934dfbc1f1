import type { Clock } from '../clock.ts'
import type { Database } from '../store/database.ts'
import { formerOwners } from '../store/nodes.ts'
import type { HostedRow } from '../store/rows.ts'
import type { Logger } from './log.ts'

export interface ChronicleOptions {
  database: Database
  clock: Clock
  log: Logger
}

/** Who has found the database away. */
type Finder = 'commits' | 'lease'

/** What a node tells the log of its own life: each turn of it once, with its numbers. */
export class Chronicle {
  #options: ChronicleOptions
  #away = new Set<Finder>()
  #awaySince = 0
  #drainingSince = 0

  constructor(options: ChronicleOptions) {
    this.#options = options
  }

  registered(epoch: number, leaseMs: number): void {
    this.#options.log.info({ epoch, lease_ms: leaseMs }, 'the node is registered')
  }

  /** The runs belong to others: nothing that was done for them since counts. */
  leaseLost(epoch: number, runs: number): void {
    const message = 'the lease was lost; registered again under a new epoch'
    this.#options.log.warn({ epoch, runs_dropped: runs }, message)
  }

  fenced(run_id: string, epoch: number | null): void {
    const message = 'a run has another owner; what was decided here was not recorded'
    this.#options.log.warn({ run_id, epoch }, message)
  }

  /** Says whose the runs were. Of no importance to the runs: an error is not one of theirs. */
  async adopted(rows: HostedRow[], epoch: number): Promise<void> {
    const { log, database } = this.#options
    const runIds = rows.map(({ run_id }) => run_id)
    if (runIds.length === 0) return
    const owners = await formerOwners(database.runtime, runIds, epoch).catch(() => [])
    for (const { node_id: from_node, epoch: from_epoch, ...facts } of owners)
      log.warn({ from_node, from_epoch, ...facts }, 'runs of a lost node were adopted')
  }

  /** Only the first to find it so has something to tell. */
  away(finder: Finder, error: unknown): void {
    if (this.#away.size === 0) {
      this.#awaySince = this.#options.clock.monotonicMs()
      this.#options.log.warn({ problem: String(error) }, 'the database is away; decisions wait')
    }
    this.#away.add(finder)
  }

  back(finder: Finder): void {
    if (!this.#away.delete(finder) || this.#away.size > 0) return
    const away_ms = Math.round(this.#options.clock.monotonicMs() - this.#awaySince)
    this.#options.log.info({ away_ms }, 'the database is back')
  }

  draining(runs: number): void {
    this.#drainingSince = this.#options.clock.monotonicMs()
    this.#options.log.info({ runs }, 'the node drains')
  }

  /** `left`: runs that could not be handed over. */
  drained(left: number): void {
    const { log, clock } = this.#options
    const facts = { left, drain_ms: Math.round(clock.monotonicMs() - this.#drainingSince) }
    if (left === 0) log.info(facts, 'the node has drained')
    else log.warn(facts, 'runs could not be handed over; another node adopts them')
  }
}
