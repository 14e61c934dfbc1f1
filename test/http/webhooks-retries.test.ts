import postgres from 'postgres'
import { afterAll, expect, test } from 'vitest'
import { deleteDeliveries, expireDeliveries } from '../../src/store/deliveries.ts'
import { type Api, api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { fakeResolver } from '../support/resolver.ts'
import { type ServiceOptions, startService } from '../support/service.ts'
import { type Receiver, WEBHOOK_SECRET } from '../support/webhook-receiver.ts'
import { receiverFor } from '../support/webhook-stage.ts'
import { scripted } from './setup.ts'

const DAY_MS = 24 * 3_600_000
const databaseUrl = await freshDatabase()
const { nodeArgs, setNames } = fakeResolver()
const options: ServiceOptions = {
  databaseUrl,
  nodeArgs,
  env: { RUNLANE_WEBHOOK_SECRET: WEBHOOK_SECRET, RUNLANE_WEBHOOK_ALLOW: '127.0.0.1' },
}
let service = await startService(options)
afterAll(() => service.kill())
// The port stays the same over restarts.
const client: Api = api(service)
const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
afterAll(() => sql.end())

/** A run that has ended, and whose callback is on its way. */
const ended = async (callback_url: string): Promise<Run> => {
  const run = await client.createRun(scripted([{ return: 1 }], { callback_url }))
  return client.waitForRun(run.run_id)
}
const arrived = (receiver: Receiver, path: string, count: number) =>
  eventually(() => receiver.at(path).length >= count && receiver.at(path), {
    timeoutMs: 15_000,
    message: () => `${count} at ${path} (${receiver.at(path).length})`,
  })
const rowOf = async (run: Run) => {
  const [row] = await sql`select * from runlane.webhook_deliveries where run_id = ${run.run_id}`
  return row
}
const rowWith = (run: Run, check: (row: postgres.Row) => boolean) =>
  eventually(async () => {
    const row = await rowOf(run)
    return row && check(row) && row
  })
const over = (run: Run) => rowWith(run, (row) => row['finished_at'] !== null)

test('a receiver that fails is asked again, ever more slowly, with the very same notice', async () => {
  const receiver = await receiverFor({ '/flaky': [500, 404, 503, 200] })
  const run = await ended(`${receiver.url}/flaky`)

  const attempts = await arrived(receiver, '/flaky', 4)

  expect(new Set(attempts.map(({ body }) => body)).size).toBe(1)
  const pauses = attempts.slice(1).map(({ at }, nth) => at - (attempts[nth]?.at ?? 0))
  for (const [nth, pause] of pauses.entries()) expect(pause).toBeGreaterThan(450 * 2 ** nth)
  const stamps = attempts.map(({ headers }) => Number(headers['webhook-timestamp']))
  expect(stamps.at(-1)).toBeGreaterThan(stamps[0] ?? 0)
  expect(await over(run)).toMatchObject({
    outcome: 'delivered',
    last_status: 200,
    attempts: 4,
    notice: null,
  })
})

test('a receiver is not asked again before its Retry-After, in seconds or as a date', async () => {
  const date = new Date(Date.now() + 4_000).toUTCString()
  const receiver = await receiverFor({
    '/seconds': [{ status: 429, headers: { 'retry-after': '3' } }, 200],
    '/date': [{ status: 503, headers: { 'retry-after': date } }, 200],
  })
  await Promise.all(['/seconds', '/date'].map((path) => ended(receiver.url + path)))

  const [first, second] = await arrived(receiver, '/seconds', 2)
  const [, dated] = await arrived(receiver, '/date', 2)

  expect((second?.at ?? 0) - (first?.at ?? 0)).toBeGreaterThan(2_950)
  expect(Number(dated?.headers['webhook-timestamp'])).toBeGreaterThanOrEqual(
    Date.parse(date) / 1000,
  )
})

test('410 ends a delivery, a redirect is not followed', async () => {
  const elsewhere = await receiverFor({})
  const receiver = await receiverFor({
    '/gone': [410],
    '/moved': [{ status: 307, headers: { location: `${elsewhere.url}/inside` } }, 204],
  })
  const gone = await ended(`${receiver.url}/gone`)
  const moved = await ended(`${receiver.url}/moved`)

  expect(await over(gone)).toMatchObject({ outcome: 'gone', last_status: 410, attempts: 1 })
  expect(await rowWith(moved, (row) => row['last_status'] === 307)).toMatchObject({
    last_error: expect.stringContaining('redirects are not followed'),
  })
  await arrived(receiver, '/moved', 2)
  expect(elsewhere.deliveries).toEqual([])
})

test('receivers that do not answer hold two places each, and the others are told at once', async () => {
  const hanging = await Promise.all(Array.from({ length: 4 }, () => receiverFor({ '/': ['hang'] })))
  const good = await receiverFor({})
  const callbacks = hanging.flatMap(({ url }) => Array.from({ length: 30 }, () => `${url}/`))
  await client.createBatch(callbacks.map((callback_url) => scripted([], { callback_url })))
  await eventually(() => hanging.every(({ deliveries }) => deliveries.length > 0))

  const before = performance.now()
  await client.createBatch(
    Array.from({ length: 100 }, () => scripted([], { callback_url: `${good.url}/good` })),
  )
  await arrived(good, '/good', 100)

  // Far less than the 15 seconds after which the others are given up.
  expect(performance.now() - before).toBeLessThan(8_000)
  for (const { deliveries } of hanging) expect(deliveries).toHaveLength(2)
  await sql`delete from runlane.webhook_deliveries where finished_at is null`
})

test('a name that resolves to a private address when it is connected to is not reached', async () => {
  const receiver = await receiverFor({})
  setNames({ 'inner.test': ['127.0.0.2'] })
  const run = await ended(`http://inner.test:${receiver.port}/`)

  expect(await rowWith(run, (row) => row['last_error'] !== null)).toMatchObject({
    finished_at: null,
    last_error: expect.stringContaining('resolves to a private address'),
  })

  // It is a failure like any other: another day the name may lead elsewhere.
  setNames({ 'inner.test': ['127.0.0.1'] })
  await over(run)
  expect(receiver.deliveries).toHaveLength(1)
})

test('a notice is given up 24 hours after its event', async () => {
  const receiver = await receiverFor({ '/': [500] })
  const old = await ended(`${receiver.url}/`)
  await rowWith(old, (row) => row['attempts'] === 1 && row['last_status'] === 500)

  await sql`update runlane.webhook_deliveries set created_at = created_at - interval '24 hours'
    where run_id = ${old.run_id}`

  expect(await over(old)).toMatchObject({ outcome: 'given_up', last_status: 500, notice: null })
  expect(service.stderr()).toMatch(/"run_id":"[^"]+".*a webhook was given up/)
})

test('what waited for its turn too long is given up, what is over is deleted, the rest stays', async () => {
  const receiver = await receiverFor({
    '/ok': [200],
    '/later': [{ status: 500, headers: { 'retry-after': '600' } }],
  })
  const [done, late, young] = await Promise.all([
    ended(`${receiver.url}/ok`),
    ended(`${receiver.url}/later`),
    ended(`${receiver.url}/later`),
  ])
  await over(done)
  for (const run of [late, young]) await rowWith(run, (row) => row['last_status'] === 500)
  await sql`update runlane.webhook_deliveries set created_at = created_at - interval '25 hours',
    next_attempt_at = next_attempt_at - interval '25 hours' where run_id = ${late.run_id}`

  // The service looks once a minute; a try of its own may come first.
  await expireDeliveries(sql as never, DAY_MS, 10)
  expect(await over(late)).toMatchObject({ outcome: 'given_up' })
  await sql`update runlane.webhook_deliveries set finished_at = finished_at - interval '2 days'
    where run_id = ${done.run_id}`
  expect(await deleteDeliveries(sql as never, DAY_MS, 10)).toBe(1)

  expect(await rowOf(done)).toBeUndefined()
  expect(await rowOf(late)).toBeDefined()
  expect(await rowOf(young)).toMatchObject({ finished_at: null, outcome: null })
})

test('a node that stops does not wait for receivers; the next one begins again at once', async () => {
  const receiver = await receiverFor({ '/': ['hang', 204] })
  const run = await ended(`${receiver.url}/`)
  await arrived(receiver, '/', 1)

  const asked = performance.now()
  expect(await service.stop()).toEqual({ code: 0, signal: null })
  expect(performance.now() - asked).toBeLessThan(6_000)
  service = await service.restart()

  await arrived(receiver, '/', 2)
  expect(await over(run)).toMatchObject({ outcome: 'delivered', attempts: 2 })
})

test('a run without a receiver leaves nothing behind', async () => {
  const run = await client.createRun(scripted([{ fail: 'x' }]))
  await client.waitForRun(run.run_id)

  expect(await rowOf(run)).toBeUndefined()
})
