/** Every metric that the service exports: its name, what it says, and all the values that its labels can have. */

/** What a value that is not in the list of its label is counted as: no label ever grows. */
export const OTHER = 'other'

export interface Metric {
  /** As OpenTelemetry has it. The unit is part of it, so that a scrape and a push through a collector agree on one name. */
  readonly name: string
  readonly kind: 'counter' | 'gauge' | 'histogram'
  readonly unit: string
  readonly says: string
  readonly labels: Readonly<Record<string, readonly string[]>>
  /** Upper bounds of a histogram's buckets. */
  readonly bounds?: readonly number[]
  /** `all`: of all nodes together, the same whichever is asked. Take the largest of them, not the sum. */
  readonly of: 'node' | 'all'
}

const ENDS = ['completed', 'failed', 'cancelled', 'timed_out']
const OPEN = [
  'queued',
  'waiting_on_lane',
  'resuming',
  'running',
  'waiting_on_tool',
  'waiting_on_child',
  'cancel_requested',
  'waiting_on_human',
]
const VERDICTS = [
  'auto_terminate',
  'time_out',
  'queue_timeout',
  'force_cancel',
  'recover',
  'cancel_orphan',
]
const NONE = {}

const metric =
  (kind: Metric['kind'], of: Metric['of']) =>
  (
    name: string,
    unit: string,
    labels: Metric['labels'],
    says: string,
    bounds?: number[],
  ): Metric => ({
    name: `runlane.${name}`,
    kind,
    unit,
    labels,
    says,
    of,
    ...(bounds ? { bounds } : {}),
  })
const counter = metric('counter', 'node')
const histogram = metric('histogram', 'node')
const gauge = metric('gauge', 'node')
const gaugeOfAll = metric('gauge', 'all')

export const METRICS = {
  runsStarted: counter('runs.started', '{run}', NONE, 'runs that began their first attempt here'),
  runsFinished: counter(
    'runs.finished',
    '{run}',
    { outcome: ENDS },
    'runs that ended, as often as they did',
  ),
  runsAdopted: counter('runs.adopted', '{run}', NONE, 'runs taken over from dead nodes'),
  runDuration: histogram(
    'run.duration.seconds',
    's',
    { outcome: ENDS },
    'from its first start to its end; waiting for people and resumes included',
    [0.1, 0.5, 1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400, 259_200, 604_800],
  ),
  runsHosted: gauge('runs.hosted', '{run}', NONE, 'active runs of this node'),
  runsActive: gaugeOfAll('runs.active', '{run}', { status: OPEN }, 'unfinished runs'),
  runsStuck: gaugeOfAll('runs.stuck', '{run}', NONE, 'runs that the watchdog has flagged'),
  laneDepth: gaugeOfAll('lane.depth', '{run}', NONE, 'runs that wait in the longest lane'),
  laneOldestAge: gaugeOfAll(
    'lane.oldest_age.seconds',
    's',
    NONE,
    'how long a run waits for its lane',
  ),
  queueOldestAge: gaugeOfAll(
    'queue.oldest_age.seconds',
    's',
    NONE,
    'how long a run whose turn it is waits for a node',
  ),
  toolCalls: counter(
    'tool.calls',
    '{call}',
    { outcome: ['succeeded', 'failed', 'unknown', 'replayed', OTHER] },
    'tool calls that ended, were left unknown by a crash, or were answered from the record',
  ),
  watchdogDetections: counter(
    'watchdog.detections',
    '{run}',
    { clock: ['reasoning', 'tool', 'turn', 'executor', OTHER] },
    'runs flagged as stuck, by the clock that ran out',
  ),
  watchdogRecoveries: counter('watchdog.recoveries', '{run}', NONE, 'flags that were cleared'),
  watchdogActions: counter(
    'watchdog.actions',
    '{run}',
    { action: [...VERDICTS, OTHER], result: ['ended', 'would_end', 'held', OTHER] },
    'verdicts of watchdog and reconciler: carried out, only told of (shadow), or held back',
  ),
  leasesLost: counter(
    'leases.lost',
    '{lease}',
    NONE,
    'leases that this node lost, and with them its runs',
  ),
  fencesRefused: counter(
    'fences.refused',
    '{record}',
    NONE,
    'records refused because the run had another owner or version',
  ),
  flushDuration: histogram(
    'flush.duration.seconds',
    's',
    NONE,
    'one commit of what the runs of a node decided, from sending it to its answer',
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10],
  ),
  flushRecords: histogram(
    'flush.records',
    '{record}',
    NONE,
    'records in one commit',
    [0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000],
  ),
  sseClients: gauge('sse.clients', '{stream}', NONE, 'event streams that are open'),
  sseDropped: counter(
    'sse.dropped',
    '{stream}',
    { reason: ['behind', 'stalled'] },
    'readers told to start over, and readers whose connection took nothing',
  ),
  webhookAttempts: counter(
    'webhook.deliveries',
    '{attempt}',
    { result: ['delivered', 'gone', 'failed', 'given_up'] },
    'attempts by what came of them; given_up: a notice that is not tried again',
  ),
  webhookOldestAge: gaugeOfAll(
    'webhook.oldest_age.seconds',
    's',
    NONE,
    'how long a notice waits to be delivered',
  ),
  databaseWait: gauge(
    'database.wait.seconds',
    's',
    { pool: ['callers', 'runtime'] },
    'the simplest query, waiting for a connection of the pool included; at most 2',
  ),
  eventLoopDelayP99: gauge(
    'eventloop.delay.p99.seconds',
    's',
    NONE,
    'how late the event loop was, at most, in 99 of 100 cases of the last ten seconds',
  ),
  eventLoopDelayMax: gauge(
    'eventloop.delay.max.seconds',
    's',
    NONE,
    'how late it was at most in the last ten seconds',
  ),
} satisfies Record<string, Metric>

/** As it is scraped. */
export const prometheusName = ({ name, kind }: Metric): string =>
  `${name.replaceAll('.', '_')}${kind === 'counter' ? '_total' : ''}`

/** The table of the README. */
export function metricsTable(): string {
  const rows = Object.values<Metric>(METRICS).map((one) => {
    const labels = Object.entries(one.labels).map(
      ([label, values]) => `\`${label}\`: ${values.join(', ')}`,
    )
    const of = one.of === 'all' ? 'all nodes' : 'this node'
    return `| \`${prometheusName(one)}\` | ${one.kind} | ${of} | ${one.says} | ${labels.join('; ')} |`
  })
  return ['| metric | | of | | labels |', '| --- | --- | --- | --- | --- |', ...rows, ''].join('\n')
}
