import type {
  Attributes,
  BatchObservableResult,
  Histogram,
  Meter,
  Observable,
} from '@opentelemetry/api'
import { PrometheusSerializer } from '@opentelemetry/exporter-prometheus'
import {
  AggregationTemporality,
  InstrumentType,
  MeterProvider,
  MetricReader,
} from '@opentelemetry/sdk-metrics'
import { METRICS, type Metric, OTHER } from './metrics.ts'

type Name = keyof typeof METRICS

/** One value of a metric, with the values of its labels. */
export interface Reading {
  metric: Name
  value: number
  labels?: Record<string, string>
}

/** How long a scrape waits for what has to be read first. */
const READ_MS_MAX = 3_000

/**
 * The start-up of OpenTelemetry's metrics: an instrument for each row of the table, and nothing else.
 *
 * Counters and gauges are read when somebody scrapes, so that counting is no more than adding to a number. Nothing is global
 * here: several of these in one process do not know of each other.
 */
export class Metering {
  #reader = new ScrapeReader()
  #provider = new MeterProvider({ readers: [this.#reader] })
  #meter: Meter = this.#provider.getMeter('runlane')
  #serializer = new PrometheusSerializer(undefined, false, undefined, true, true)
  #histograms = new Map<Name, Histogram>()
  #scraping: Promise<string> | null = null

  /** @param read answers the present values, at each scrape; those that it leaves out are not exported. */
  constructor(read: () => Promise<Reading[]>) {
    const observed = new Map<Name, Observable>()
    for (const [name, metric] of Object.entries(METRICS) as [Name, Metric][]) {
      const options = { description: metric.says, unit: metric.unit }
      if (metric.kind === 'histogram') {
        const advice = { explicitBucketBoundaries: [...(metric.bounds ?? [])] }
        this.#histograms.set(name, this.#meter.createHistogram(metric.name, { ...options, advice }))
      } else if (metric.kind === 'counter') {
        observed.set(name, this.#meter.createObservableCounter(metric.name, options))
      } else observed.set(name, this.#meter.createObservableGauge(metric.name, options))
    }
    const observe = async (result: BatchObservableResult): Promise<void> => {
      for (const { metric, value, labels } of summed(await read())) {
        const instrument = observed.get(metric)
        if (instrument) result.observe(instrument, value, labels)
      }
    }
    this.#meter.addBatchObservableCallback(observe, [...observed.values()])
  }

  record({ metric, value, labels = {} }: Reading): void {
    this.#histograms.get(metric)?.record(value, checked(metric, labels))
  }

  /** All of it in Prometheus' text format, version 0.0.4. Whoever asks while it is made gets the same. */
  scrape(): Promise<string> {
    // Two collections at once would share out the gauges between them: each is told to the first that collects it.
    this.#scraping ??= this.#collect().finally(() => {
      this.#scraping = null
    })
    return this.#scraping
  }

  async close(): Promise<void> {
    await this.#provider.shutdown()
  }

  async #collect(): Promise<string> {
    const { resourceMetrics } = await this.#reader.collect({ timeoutMillis: READ_MS_MAX })
    return this.#serializer.serialize(resourceMetrics)
  }
}

/**
 * Gauges are told as they are observed, each time anew. The reader of the Prometheus exporter has everything cumulative, and
 * then the SDK goes on telling what was not observed any more: during an outage, the state of before it.
 */
class ScrapeReader extends MetricReader {
  constructor() {
    super({
      aggregationTemporalitySelector: (type) =>
        type === InstrumentType.OBSERVABLE_GAUGE
          ? AggregationTemporality.DELTA
          : AggregationTemporality.CUMULATIVE,
    })
  }

  protected override async onForceFlush(): Promise<void> {}
  protected override async onShutdown(): Promise<void> {}
}

/** One reading for each series: values that the table does not know are one together. */
function summed(readings: Reading[]): { metric: Name; value: number; labels: Attributes }[] {
  const series = new Map<string, { metric: Name; value: number; labels: Attributes }>()
  for (const { metric, value, labels: given = {} } of readings) {
    const labels = checked(metric, given)
    const key = JSON.stringify([metric, labels])
    const earlier = series.get(key)
    if (earlier) earlier.value += value
    else series.set(key, { metric, value, labels })
  }
  return [...series.values()]
}

/** Only labels of the table, with values of the table: whatever is counted, the number of series is known. */
function checked(name: Name, given: Record<string, string>): Attributes {
  const labels: Readonly<Record<string, readonly string[]>> = METRICS[name].labels
  return Object.fromEntries(
    Object.entries(labels).map(([label, values]) => {
      const value = given[label] ?? OTHER
      return [label, values.includes(value) ? value : OTHER]
    }),
  )
}
