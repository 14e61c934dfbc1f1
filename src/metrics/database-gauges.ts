import { setTimeout as delay } from 'node:timers/promises'
import type { Reading } from '../../otel/meter.ts'
import { METRICS } from '../../otel/metrics.ts'
import type { Database } from '../store/database.ts'
import { type Gauges, ping, readGauges } from '../store/gauges.ts'

/** How long what was read counts as the present, in milliseconds; longer, if reading it took long. */
const FRESH_MS = 5_000
/** Of the time between two readings, the part that reading may take: the more runs are open, the seldomer they are counted. */
const SHARE = 1 / 20
/** A scrape does not wait longer than this for the database, in milliseconds. */
const PATIENCE_MS = 2_000

/** What only the database knows. Read seldom, once at a time, and not waited for when it is away. */
export class DatabaseGauges {
  #database: Pick<Database, 'reads' | 'runtime'>
  #monotonicMs: () => number
  #reading: Promise<Reading[]> | null = null
  #latest: Reading[] = []
  #until = -Infinity

  constructor(database: Pick<Database, 'reads' | 'runtime'>, monotonicMs: () => number) {
    this.#database = database
    this.#monotonicMs = monotonicMs
  }

  /** Empty while the database does not answer: what is not known is not told. */
  async read(): Promise<Reading[]> {
    if (this.#monotonicMs() < this.#until) return this.#latest
    this.#reading ??= this.#readAll().finally(() => {
      this.#reading = null
    })
    const late = this.#waited(PATIENCE_MS, PATIENCE_MS)
    return Promise.race([this.#reading, delay(PATIENCE_MS, late, { ref: false })])
  }

  async #readAll(): Promise<Reading[]> {
    const since = this.#monotonicMs()
    try {
      const { reads, runtime } = this.#database
      const [callers, own] = await Promise.all([this.#timed(reads), this.#timed(runtime)])
      const gauges = await readGauges(reads)
      this.#latest = [...this.#waited(callers, own), ...readingsOf(gauges)]
    } catch {
      this.#latest = []
    }
    const took = this.#monotonicMs() - since
    this.#until = this.#monotonicMs() + Math.max(FRESH_MS, took / SHARE)
    return this.#latest
  }

  async #timed(sql: Database['reads']): Promise<number> {
    const since = this.#monotonicMs()
    await ping(sql)
    return Math.min(this.#monotonicMs() - since, PATIENCE_MS)
  }

  #waited(callersMs: number, runtimeMs: number): Reading[] {
    return [
      { metric: 'databaseWait', labels: { pool: 'callers' }, value: callersMs / 1000 },
      { metric: 'databaseWait', labels: { pool: 'runtime' }, value: runtimeMs / 1000 },
    ]
  }
}

function readingsOf(gauges: Gauges): Reading[] {
  return [
    // Every status, so that one without runs is 0 and not what it was.
    ...(METRICS.runsActive.labels['status'] ?? []).map((status): Reading => ({
      metric: 'runsActive',
      labels: { status },
      value: gauges.by_status[status] ?? 0,
    })),
    { metric: 'runsStuck', value: gauges.stuck },
    { metric: 'laneDepth', value: gauges.lane_depth },
    { metric: 'laneOldestAge', value: gauges.lane_age },
    { metric: 'queueOldestAge', value: gauges.queue_age },
    { metric: 'webhookOldestAge', value: gauges.webhook_age },
  ]
}
