import { spawnSync } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'
import { afterAll, describe, expect, inject, onTestFinished, test } from 'vitest'
import { METRICS, type Metric, prometheusName } from '../../otel/metrics.ts'
import type { Verdict } from '../../src/runtime/run/messages.ts'
import { isTerminal, STATUSES } from '../../src/store/rows.ts'
import { api, type Api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { parseExposition, valueOf } from '../support/exposition.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { createDatabase } from '../support/postgres.ts'
import { startService } from '../support/service.ts'
import { readSse } from '../support/sse.ts'
import { startTcpProxy, upstreamOf } from '../support/tcp-proxy.ts'
import { startReceiver, WEBHOOK_SECRET } from '../support/webhook-receiver.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const receiver = await startReceiver({ '/gone': [410], '/flaky': [500, 204] })
const service = await startService({
  databaseUrl,
  env: {
    RUNLANE_WEBHOOK_SECRET: WEBHOOK_SECRET,
    RUNLANE_WATCHDOG_TOOL: '300ms',
    RUNLANE_WATCHDOG_INTERVAL: '50ms',
  },
})
afterAll(async () => {
  await service.kill()
  await receiver.close()
})
const client = api(service)

const scrape = async ({ get }: Api = client) => {
  const { status, headers, body } = await get('/metrics')
  expect(status).toBe(200)
  expect(headers.get('content-type')).toBe('text/plain; version=0.0.4; charset=utf-8')
  return parseExposition(body as string)
}
type Scraped = Awaited<ReturnType<typeof scrape>>
/** Numbers of the database are read every five seconds. */
const scrapedWhen = (check: (scraped: Scraped) => boolean, of: Api = client) =>
  eventually(
    async () => {
      const scraped = await scrape(of)
      return check(scraped) && scraped
    },
    { timeoutMs: 15_000, everyMs: 100 },
  )
const total = (scraped: Scraped, name: string, labels: Record<string, string> = {}) =>
  valueOf(scraped, `runlane_${name}_total`, labels)
const ended = async (steps: unknown[], more: Record<string, unknown> = {}) => {
  const run = await client.createRun(scripted(steps, more))
  return client.waitForRun(run.run_id)
}

describe('after some runs', () => {
  test('the counters are what was done', async () => {
    await Promise.all([
      ...[1, 2, 3].map((n) =>
        ended([
          { tool: 'a', ms: 1 },
          { tool: 'b', ms: n },
        ]),
      ),
      ended([{ tool: 'c', fail: 'no luck' }]),
      ended([{ return: 1 }], { callback_url: `${receiver.url}/ok` }),
      ended([{ return: 1 }], { callback_url: `${receiver.url}/gone` }),
      ended([{ return: 1 }], { callback_url: `${receiver.url}/flaky` }),
      // Stuck, and then well again; and stuck to the end.
      ended([{ tool: 'slow', ms: 1_000 }]),
      ended([{ tool: 'never', hang: true }], { execution_timeout_override: '200ms' }),
    ])
    const cancelled = await client.createRun(scripted([{ think: 60_000 }]))
    await client.waitForRun(cancelled.run_id, { until: ({ status }) => status === 'running' })
    await client.cancel(cancelled.run_id)
    await client.waitForRun(cancelled.run_id)

    const scraped = await scrapedWhen(
      (now) => total(now, 'webhook_deliveries', { result: 'delivered' }) === 2,
    )

    expect(total(scraped, 'runs_started')).toBe(10)
    const ends = ['completed', 'failed', 'cancelled', 'timed_out'].map((outcome) => [
      outcome,
      total(scraped, 'runs_finished', { outcome }),
      valueOf(scraped, 'runlane_run_duration_seconds_count', { outcome }),
    ])
    expect(ends).toEqual([
      ['completed', 7, 7],
      ['failed', 2, 2],
      ['cancelled', 1, 1],
      ['timed_out', 0, undefined],
    ])
    const calls = ['succeeded', 'failed', 'unknown', 'replayed', 'other'].map((outcome) =>
      total(scraped, 'tool_calls', { outcome }),
    )
    expect(calls).toEqual([7, 1, 0, 0, undefined])
    expect(total(scraped, 'watchdog_detections', { clock: 'tool' })).toBe(2)
    expect(total(scraped, 'watchdog_recoveries')).toBeGreaterThanOrEqual(1)
    const verdict = { action: 'auto_terminate', result: 'ended' }
    expect(total(scraped, 'watchdog_actions', verdict)).toBe(1)
    expect(total(scraped, 'webhook_deliveries', { result: 'gone' })).toBe(1)
    expect(total(scraped, 'webhook_deliveries', { result: 'failed' })).toBe(1)
    expect(valueOf(scraped, 'runlane_flush_records_sum')).toBeGreaterThan(20)
    // The slow run took a second of the ten together.
    const slow = valueOf(scraped, 'runlane_run_duration_seconds_sum', { outcome: 'completed' })
    expect(slow).toBeGreaterThan(1)
    expect(slow).toBeLessThan(20)
  })

  test('the gauges are what there is', async () => {
    const lane_key = 'busy'
    const holder = await client.createRun(scripted([{ think: 600_000 }], { lane_key }))
    await client.createBatch(
      Array.from({ length: 3 }, () => scripted([{ think: 600_000 }], { lane_key })),
    )
    const hanging = await client.createRun(
      scripted([{ tool: 'x', hang: true }], { timeouts: { tool: '300ms' } }),
    )
    const stream = readSse({ url: `${service.url}/agent-events`, token: service.token })
    onTestFinished(() => stream.close())
    await stream.next()

    const scraped = await scrapedWhen(
      (now) =>
        valueOf(now, 'runlane_lane_depth') === 3 &&
        valueOf(now, 'runlane_runs_stuck') === 1 &&
        valueOf(now, 'runlane_sse_clients') === 1,
    )

    const active = (status: string) => valueOf(scraped, 'runlane_runs_active', { status })
    expect(['running', 'waiting_on_lane', 'waiting_on_tool', 'queued'].map(active)).toEqual([
      1, 3, 1, 0,
    ])
    expect(valueOf(scraped, 'runlane_runs_hosted')).toBe(2)
    expect(valueOf(scraped, 'runlane_lane_oldest_age_seconds')).toBeGreaterThan(0)
    expect(valueOf(scraped, 'runlane_queue_oldest_age_seconds')).toBe(0)
    expect(valueOf(scraped, 'runlane_database_wait_seconds', { pool: 'callers' })).toBeLessThan(2)

    stream.close()
    await client.cancel(holder.run_id)
    await client.cancel(hanging.run_id)
    await scrapedWhen(
      (now) =>
        valueOf(now, 'runlane_sse_clients') === 0 && valueOf(now, 'runlane_lane_depth') === 2,
    )
  })
})

test('what is scraped is the table, and its labels have the values of the table alone', async () => {
  await ended([])
  const scraped = await scrape()
  const table = Object.values<Metric>(METRICS)

  expect([...scraped.keys()].toSorted()).toEqual(table.map(prometheusName).toSorted())
  for (const metric of table) {
    const family = scraped.get(prometheusName(metric))
    expect(family).toMatchObject({ type: metric.kind, help: metric.says })
    for (const { labels } of family?.samples ?? []) {
      const { le: _le, ...others } = labels
      expect(Object.keys(others)).toEqual(Object.keys(metric.labels))
      for (const [label, value] of Object.entries(others))
        expect(metric.labels[label]).toContain(value)
    }
  }
  const { body } = await client.get('/metrics')
  expect(body).not.toMatch(/run_[0-9A-Z]{26}|scripted|127\.0\.0\.1/)
  expect((body as string).split('\n').length).toBeLessThan(300)
})

test('the table knows every verdict and every status that the code has', () => {
  // The compiler refuses a record that lacks one of them, or has another.
  const actions: Record<Verdict['action'], true> = {
    auto_terminate: true,
    time_out: true,
    queue_timeout: true,
    force_cancel: true,
    recover: true,
    cancel_orphan: true,
  }
  const results: Record<Verdict['result'], true> = { ended: true, would_end: true, held: true }
  const { action, result } = METRICS.watchdogActions.labels as Record<string, string[]>
  expect(action?.toSorted()).toEqual([...Object.keys(actions), 'other'].toSorted())
  expect(result?.toSorted()).toEqual([...Object.keys(results), 'other'].toSorted())
  const open = STATUSES.filter((status) => !isTerminal(status))
  const { status } = METRICS.runsActive.labels as Record<string, string[]>
  expect(status?.toSorted()).toEqual(open.toSorted())
  const { outcome } = METRICS.runsFinished.labels as Record<string, string[]>
  expect(outcome?.toSorted()).toEqual(STATUSES.filter(isTerminal).toSorted())
})

const hasPromtool = spawnSync('promtool', ['--version']).status === 0
test.skipIf(!hasPromtool)('promtool has nothing to say of it', async () => {
  const { body } = await client.get('/metrics')
  const options = { input: body as string, encoding: 'utf8' } as const
  const { status, stdout, stderr } = spawnSync('promtool', ['check', 'metrics'], options)
  expect({ status, said: `${stdout}${stderr}` }).toEqual({ status: 0, said: '' })
})

test('scrapes at the same time are each whole', async () => {
  await ended([])
  const names = Object.values<Metric>(METRICS).map(prometheusName).toSorted()
  // Past the time for which numbers of the database are kept, so that some of the scrapes wait for them.
  const deadline = performance.now() + 6_000
  while (performance.now() < deadline) {
    // No more of them than a caller may make.
    await pause(200)
    const scrapes = await Promise.all(Array.from({ length: 10 }, () => scrape()))
    for (const scraped of scrapes) expect([...scraped.keys()].toSorted()).toEqual(names)
  }
})

test('nobody without a token reads it', async () => {
  const response = await api({ url: service.url }).get('/metrics')
  expectProblem(response, { status: 401, code: 'unauthorized' })
})

test('while the database is away the node tells what it knows by itself, and tells it soon', async () => {
  const own = await createDatabase(inject('databaseUrl'))
  const proxy = await startTcpProxy(upstreamOf(own.url))
  const behind = await startService({ databaseUrl: proxy.url(own.url) })
  onTestFinished(async () => {
    await behind.kill()
    await proxy.close()
    await own.drop()
  })
  const other = api(behind)
  const run = await other.createRun(scripted([{ return: 1 }]))
  await other.waitForRun(run.run_id)
  const known = (now: Scraped) => valueOf(now, 'runlane_runs_active', { status: 'queued' })
  const completed = (now: Scraped) => total(now, 'runs_finished', { outcome: 'completed' })
  // The end is in the database before the node has the answer to its commit.
  await scrapedWhen((now) => known(now) === 0 && completed(now) === 1, other)

  proxy.refuse(true)
  proxy.cutAll()
  const asked = performance.now()
  const during = await scrapedWhen((now) => known(now) === undefined, other)

  expect(completed(during)).toBe(1)
  expect(valueOf(during, 'runlane_runs_stuck')).toBeUndefined()
  expect(performance.now() - asked).toBeLessThan(12_000)

  proxy.refuse(false)
  expect(completed(await scrapedWhen((now) => known(now) === 0, other))).toBe(1)
})

test('a silent database does not keep a scrape waiting for more than three seconds', async () => {
  const own = await createDatabase(inject('databaseUrl'))
  const proxy = await startTcpProxy(upstreamOf(own.url))
  const behind = await startService({ databaseUrl: proxy.url(own.url) })
  onTestFinished(async () => {
    proxy.resume()
    await behind.kill()
    await proxy.close()
    await own.drop()
  })
  proxy.pause()

  const asked = performance.now()
  const scraped = await scrape(api(behind))

  expect(performance.now() - asked).toBeLessThan(3_500)
  expect(valueOf(scraped, 'runlane_database_wait_seconds', { pool: 'callers' })).toBe(2)
  expect(valueOf(scraped, 'runlane_runs_stuck')).toBeUndefined()
})
