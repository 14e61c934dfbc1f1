/** `POST /runs/{run_id}/signal`: what is taken, what is refused, what it leaves behind. */
import postgres from 'postgres'
import { afterAll, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
const service = await startService({
  databaseUrl,
  env: { RUNLANE_RATE_LIMIT: '100000', RUNLANE_BODY_LIMIT: '2mb' },
})
afterAll(async () => {
  await service.kill()
  await sql.end()
})
const { get, post, createRun, waitForRun, cancel } = api(service)

const thinking = (): Promise<Run> => createRun(scripted([{ think: 600_000 }]))
const signal = (run: Run, body: unknown, headers: Record<string, string> = {}) =>
  post(`/runs/${run.run_id}/signal`, body, headers)
const unread = async ({ run_id }: Run): Promise<unknown[]> => {
  const rows = await sql`select payload -> 'data' as data from runlane.run_inbox
    where run_id = ${run_id} and kind = 'signal' order by id`
  return rows.map(({ data }) => data as unknown)
}
const auditOf = async ({ run_id }: Run) =>
  (await get('/api/v1/admin/audit?action=agent_runtime.signal&limit=1000')).body.audit.filter(
    (row: { run_id: string }) => row.run_id === run_id,
  )

test('a signal is kept at once: an applied command, the run, and one audit row without its data', async () => {
  const run = await thinking()

  const { status, body } = await signal(run, { name: 'approve', data: { secret: 'tea' } })

  expect(status).toBe(202)
  expect(body.command).toEqual({
    command_id: expect.stringMatching(/^cmd_/),
    kind: 'signal',
    status: 'applied',
    outcome: 'kept',
  })
  expect(body.run).toMatchObject({ run_id: run.run_id })
  const rows = await auditOf(run)
  expect(rows).toMatchObject([
    { action: 'agent_runtime.signal', actor: 'token:admin', outcome: 'applied', reason: null },
  ])
  expect(rows[0].before).toEqual(rows[0].after)
  const [command] = await sql`select payload from runlane.run_commands where run_id = ${run.run_id}`
  expect(JSON.stringify([rows, command])).not.toContain('tea')
  expect(await unread(run)).toEqual([{ secret: 'tea' }])
})

test('its data may be any JSON, and is null when it is left out', async () => {
  const run = await thinking()
  const given = [null, false, 0, '', [], {}, 'text', [1, { a: [null] }], { __proto__: 1, x: '😀' }]
  for (const data of given) expect((await signal(run, { name: 'a', data })).status).toBe(202)
  expect((await signal(run, { name: 'A_z.0:9-' })).status).toBe(202)
  expect(await unread(run)).toEqual([...given, null])
})

test.each([
  ['no name', { data: 1 }, ['name']],
  ['an empty name', { name: '' }, ['name']],
  ['a name with other characters', { name: 'a b' }, ['name']],
  ['a name that is too long', { name: 'x'.repeat(65) }, ['name']],
  ['a name that is no text', { name: 7 }, ['name']],
  ['another field', { name: 'x', payload: 1 }, ['payload']],
  ['NUL in its data', { name: 'x', data: ['a\0b'] }, ['data[0]']],
  ['data of more than 1 MB', { name: 'x', data: 'x'.repeat(1_000_000) }, ['data']],
])('refused with %s', async (_what, body, paths) => {
  const run = await thinking()
  expectProblem(await signal(run, body), { status: 422, code: 'validation_error', paths })
  expect(await unread(run)).toEqual([])
})

test('refused for a run that is not there, that has ended, or that ends; and these refusals are audited', async () => {
  const nowhere = { ...(await thinking()), run_id: 'run_nowhere' }
  expectProblem(await signal(nowhere, { name: 'x' }), { status: 404, code: 'not_found' })

  const ended = await createRun(scripted([]))
  await waitForRun(ended.run_id)
  expectProblem(await signal(ended, { name: 'x' }), { status: 409, code: 'not_active' })
  const refused = await eventually(async () => (await auditOf(ended))[0])
  expect(refused).toMatchObject({ outcome: 'refused', actor: 'token:admin' })

  const ending = await createRun(scripted([{ tool: 't', ms: 600_000 }]))
  await waitForRun(ending.run_id, { until: ({ status }) => status === 'waiting_on_tool' })
  await cancel(ending.run_id)
  expectProblem(await signal(ending, { name: 'x' }), { status: 409, code: 'not_active' })
  expect(await unread(ending)).toEqual([])
})

test('a thousand are kept unread, however many come at once, and one audit row tells of each', async () => {
  const run = await thinking()

  const answers = await Promise.all(
    Array.from({ length: 1_030 }, (_, data) => signal(run, { name: `n${data % 7}`, data })),
  )

  const taken = answers.filter(({ status }) => status === 202)
  const refused = answers.filter(({ status }) => status !== 202)
  expect(taken).toHaveLength(1_000)
  for (const answer of refused) expectProblem(answer, { status: 409, code: 'too_many_signals' })
  expect(await unread(run)).toHaveLength(1_000)
  const counts = await sql`select outcome, count(*)::int as n from runlane.audit_events
    where run_id = ${run.run_id} group by outcome order by outcome`
  expect(counts.map(({ outcome, n }) => [outcome, n])).toEqual([
    ['applied', 1_000],
    ['refused', 30],
  ])
  // Another run is not concerned.
  expect((await signal(await thinking(), { name: 'x' })).status).toBe(202)
})

test('under one key it is one signal, also when its run has ended meanwhile', async () => {
  const run = await thinking()
  const once = (body: object = { name: 'x', data: 1 }) =>
    signal(run, body, { 'idempotency-key': 'k' })

  const answers = await Promise.all(Array.from({ length: 8 }, () => once()))

  expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(202))
  expect(await unread(run)).toEqual([1])
  expect(await auditOf(run)).toHaveLength(1)
  await cancel(run.run_id)
  await waitForRun(run.run_id)
  const late = await once()
  expect(late).toMatchObject({ status: 202, body: { run: { status: 'cancelled' } } })
  expect(late.headers.get('idempotent-replayed')).toBe('true')
  const ids = [...answers, late].map(({ body }) => body.command.command_id)
  expect(new Set(ids).size).toBe(1)
  expectProblem(await once({ name: 'x', data: 2 }), { status: 409, code: 'idempotency_conflict' })
})

test.each([
  ['completed', [{ tool: 't', ms: 300 }]],
  ['cancelled', [{ think: 600_000 }]],
])('what a run has not read when it is %s is gone', async (wanted, steps) => {
  const run = await createRun(scripted(steps))
  expect((await signal(run, { name: 'x', data: 1 })).status).toBe(202)
  expect(await unread(run)).toEqual([1])
  if (wanted === 'cancelled') await cancel(run.run_id)
  expect((await waitForRun(run.run_id)).status).toBe(wanted)
  expect(await unread(run)).toEqual([])
})

test('?wait= answers when the run is over, with the run', async () => {
  const run = await createRun(scripted([{ tool: 't', ms: 300 }]))
  const { body } = await post(`/runs/${run.run_id}/signal?wait=20s`, { name: 'x' })
  expect(body).toMatchObject({ command: { status: 'applied' }, run: { status: 'completed' } })
})
