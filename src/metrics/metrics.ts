import { Metering, type Reading } from '../../otel/meter.ts'
import { METRICS, type Metric, OTHER } from '../../otel/metrics.ts'
import type { RunlaneNode } from '../runtime/node.ts'
import type { Database } from '../store/database.ts'
import type { WebhookDispatcher } from '../webhooks/dispatcher.ts'
import { DatabaseGauges } from './database-gauges.ts'
import { EventLoopDelay } from './event-loop.ts'

export interface Measured {
  node: RunlaneNode
  webhooks: WebhookDispatcher
  database: Pick<Database, 'reads' | 'runtime'>
  monotonicMs: () => number
}

/** What `/metrics` tells of a node. */
export class Metrics {
  #measured: Measured
  #gauges: DatabaseGauges
  #eventLoop = new EventLoopDelay()
  #metering = new Metering(() => this.#read())

  constructor(measured: Measured) {
    this.#measured = measured
    this.#gauges = new DatabaseGauges(measured.database, measured.monotonicMs)
    const metering = this.#metering
    measured.node.counts.listen({
      ended: (outcome, value) =>
        metering.record({ metric: 'runDuration', value, labels: { outcome } }),
      flushed: (seconds, records) => {
        metering.record({ metric: 'flushDuration', value: seconds })
        metering.record({ metric: 'flushRecords', value: records })
      },
    })
  }

  /** In Prometheus' text format. It answers, with less in it, while the database is away. */
  scrape(): Promise<string> {
    return this.#metering.scrape()
  }

  async close(): Promise<void> {
    this.#eventLoop.close()
    await this.#metering.close()
  }

  async #read(): Promise<Reading[]> {
    const { node, webhooks } = this.#measured
    const { counts, feed } = node
    return [
      { metric: 'runsStarted', value: counts.runsStarted },
      ...sums('runsFinished', counts.finished),
      { metric: 'runsAdopted', value: counts.runsAdopted },
      { metric: 'runsHosted', value: node.hosted },
      ...sums('toolCalls', counts.toolCalls),
      ...sums('watchdogDetections', counts.detections),
      { metric: 'watchdogRecoveries', value: counts.recoveries },
      ...sums('watchdogActions', counts.verdicts),
      { metric: 'leasesLost', value: counts.leasesLost },
      { metric: 'fencesRefused', value: counts.recordsRefused },
      { metric: 'sseClients', value: feed.streams },
      ...sums('sseDropped', new Map(Object.entries(feed.dropped))),
      ...sums('webhookAttempts', new Map(Object.entries(webhooks.results))),
      { metric: 'eventLoopDelayP99', value: this.#eventLoop.p99 },
      { metric: 'eventLoopDelayMax', value: this.#eventLoop.max },
      ...(await this.#gauges.read()),
    ]
  }
}

/**
 * What was counted, by the values of the labels with spaces between, and 0 for what was not: a series that starts at 1 would
 * hide its first.
 */
function sums(metric: keyof typeof METRICS, counted: ReadonlyMap<string, number>): Reading[] {
  const labels: Metric['labels'] = METRICS[metric].labels
  const names = Object.keys(labels)
  const keys = Object.values(labels).reduce<string[][]>(
    (sofar, values) =>
      sofar.flatMap((key) => values.filter((value) => value !== OTHER).map((one) => [...key, one])),
    [[]],
  )
  const all = new Map([...keys.map((key): [string, number] => [key.join(' '), 0]), ...counted])
  return [...all].map(([key, value]) => {
    const given = key.split(' ')
    return {
      metric,
      value,
      labels: Object.fromEntries(names.map((name, nth) => [name, given[nth] ?? OTHER])),
    }
  })
}
