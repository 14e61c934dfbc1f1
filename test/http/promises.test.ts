import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import postgres from 'postgres'
import { afterAll, beforeAll, expect, onTestFinished, test } from 'vitest'
import { type Api, api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'
import { scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
let service: Service
let client: Api

beforeAll(async () => {
  service = await startService({ databaseUrl })
  client = api(service)
})
afterAll(async () => void (await service.stop()))

test('a text is said whole, although its saying line would end in half an emoji', async () => {
  const text = `${'a'.repeat(199)}😀 and more`
  const run = await client.createRun(scripted([{ say: text, chunks: 3 }]))

  const done = await client.waitForRun(run.run_id)

  expect(done.status).toBe('completed')
  expect(done.saying).toBe('a'.repeat(199))
})

test('a hundred coalesced posts at once are all taken, and the last input is what runs', async () => {
  const lane_key = 'coalesced'
  const holder = await client.createRun(scripted([{ think: 60_000 }], { lane_key }))
  const posts = Array.from({ length: 100 }, (_, n) =>
    client.post('/runs', scripted([{ return: n }], { lane_key, lane_policy: 'coalesce' })),
  )

  const statuses = (await Promise.all(posts)).map(({ status }) => status)

  expect(statuses.filter((status) => status === 202)).toHaveLength(1)
  expect(statuses.filter((status) => status === 200)).toHaveLength(99)
  await client.cancel(holder.run_id)
})

test('runs that are due together take their lane in the order of their run_at', async () => {
  const lane_key = 'due'
  const soon = Date.now() + 1_500
  const order = [3, 1, 4, 0, 5, 9, 2, 6, 8, 7]
  const runs = order.map((nth) =>
    scripted([{ return: nth }], { lane_key, run_at: new Date(soon + nth).toISOString() }),
  )
  // Held until all of them are due, so that one commit takes them in.
  const holder = await client.createRun(scripted([{ think: 3_000 }], { lane_key }))
  const created = await client.createBatch(runs)
  await client.waitForRun(holder.run_id, { timeoutMs: 20_000 })

  const done = await Promise.all(
    created.map(({ run_id }) => client.waitForRun(run_id, { timeoutMs: 20_000 })),
  )

  const started = done.toSorted((a, b) => ((a.started_at ?? '') < (b.started_at ?? '') ? -1 : 1))
  expect(started.map(({ output }) => output)).toEqual(order.toSorted((a, b) => a - b))
})

test('of six resumes at once one is applied, and the audit says of the others that they were refused', async () => {
  const run = await client.createRun(scripted([{ fail: 'no luck' }]))
  await client.waitForRun(run.run_id)

  await Promise.all(Array.from({ length: 6 }, () => client.resume(run.run_id)))

  const sql = postgres(databaseUrl, { max: 1 })
  onTestFinished(() => sql.end())
  const rows = await sql<{ action: string; outcome: string; actor: string }[]>`
    select action, outcome, actor from runlane.audit_events where run_id = ${run.run_id}`
  const commands = await sql<{ status: string }[]>`
    select status from runlane.run_commands where run_id = ${run.run_id}`
  const applied = commands.filter(({ status }) => status === 'applied').length
  expect(applied).toBeGreaterThan(0)
  expect(rows.filter(({ outcome }) => outcome === 'applied')).toHaveLength(applied)
  expect(rows).toHaveLength(6)
  expect(new Set(rows.map(({ actor }) => actor))).toEqual(new Set(['token:admin']))
})

test('a field that is null and one that is left out mean the same under one Idempotency-Key', async () => {
  const key = { 'idempotency-key': 'null' }
  const first = await client.post('/runs', scripted([]), key)
  const again = await client.post(
    '/runs',
    scripted([], { owner: null, lane_key: null, callback_url: null }),
    key,
  )

  expect(again.status).toBe(200)
  expect(again.body.run_id).toBe(first.body.run_id)
})

const namespaces = spawnSync('unshare', ['--pid', '--fork', '--mount-proc', 'true']).status === 0

test.skipIf(!namespaces)(
  'a process of another container is refused a data directory that is in use',
  async () => {
    const first = await startService()
    onTestFinished(() => void first.kill())

    const env = { PATH: process.env['PATH'] ?? '', PORT: '0', RUNLANE_DATA_DIR: first.dataDir }
    const second = spawn(
      'unshare',
      ['--pid', '--fork', '--mount-proc', '--kill-child', process.execPath, 'src/main.ts'],
      { env },
    )
    let errors = ''
    second.stderr.setEncoding('utf8').on('data', (text: string) => {
      errors += text
    })
    const [code] = (await once(second, 'exit')) as [number]

    expect(code).toBe(1)
    expect(errors).toContain('is in use')
  },
)
