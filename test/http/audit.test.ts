import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { deleteExpired } from '../../src/store/retention.ts'
import { api, type Run, type RunEvent } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const service = await startService({
  databaseUrl,
  env: {
    RUNLANE_WATCHDOG_TOOL: '200ms',
    RUNLANE_WATCHDOG_INTERVAL: '50ms',
    RUNLANE_RETENTION: 'off',
  },
})
afterAll(() => service.kill())
const sql = postgres(databaseUrl, { max: 1 })
afterAll(() => sql.end())
const { get, post, request, createRun, waitForRun, events, cancel, resume } = api(service)

const RUNTIME = '/api/v1/admin/agent-runtime'
interface Row {
  id: number
  action: string
  target: string
  run_id: string | null
  outcome: string
  before: Record<string, unknown> | null
  after: Record<string, unknown> | null
  hash: string
}
const trail = async (query: string): Promise<Row[]> =>
  (await get(`/api/v1/admin/audit?limit=1000&${query}`)).body.audit
const rowsOf = async ({ run_id }: Run): Promise<Row[]> =>
  (await trail('')).filter((row) => row.run_id === run_id)
const begun = async (step: unknown, wanted: string) => {
  const run = await createRun(scripted([step]))
  return waitForRun(run.run_id, { until: ({ status }) => status === wanted })
}
const running = () => begun({ think: 60_000 }, 'running')
const hanging = () => begun({ tool: 'lost', hang: true }, 'waiting_on_tool')
const stuck = async () =>
  waitForRun((await hanging()).run_id, { until: (one) => one.stuck_reason !== null })
const toldOf = (list: readonly RunEvent[], type: string) =>
  list.filter(({ event_type }) => event_type === type)

const STATE = {
  status: 'running',
  detail: null,
  attempt: 1,
  stuck_reason: null,
  cancel_requested: false,
  turn_extended_ms: 0,
  error_code: null,
}

describe('of a run, a row shows what the action has changed', () => {
  test('cancel: that it was asked to end', async () => {
    const run = await running()
    await cancel(run.run_id)
    expect(await rowsOf(run)).toMatchObject([
      { before: STATE, after: { ...STATE, status: 'cancel_requested', cancel_requested: true } },
    ])
  })

  test('recycle: that it has failed, and was stuck', async () => {
    const run = await stuck()
    await post(`${RUNTIME}/runs/${run.run_id}/recycle`, {})
    expect(await rowsOf(run)).toMatchObject([
      {
        before: { status: 'waiting_on_tool', stuck_reason: 'tool_call.timeout(200ms)' },
        after: { status: 'failed', stuck_reason: null, error_code: 'recycled' },
      },
    ])
  })

  test('extend: for how long; resume: that it is in line again', async () => {
    const run = await running()
    await post(`/runs/${run.run_id}/extend`, { by: '10m' })
    expect(await rowsOf(run)).toMatchObject([
      { before: { turn_extended_ms: 0 }, after: { turn_extended_ms: 600_000 } },
    ])
    await cancel(run.run_id)
    const failed = await createRun(scripted([{ fail: 'no luck' }]))
    await waitForRun(failed.run_id)
    await resume(failed.run_id)
    expect(await rowsOf(failed)).toMatchObject([
      { before: { status: 'failed', error_code: 'agent_error' }, after: { error_code: null } },
    ])
  })

  test('a refused one: how it was, and that nothing came of it', async () => {
    const run = await running()
    await post(`${RUNTIME}/runs/${run.run_id}/recycle`, {})
    const [row] = await eventually(async () => {
      const rows = await rowsOf(run)
      return rows.length > 0 && rows
    })
    expect(row).toMatchObject({ outcome: 'refused', before: STATE, after: null })
    await cancel(run.run_id)
  })

  test('what the watchdog does: as if somebody had done it', async () => {
    const { run_id } = await createRun(
      scripted([{ tool: 'lost', hang: true }], { execution_timeout_override: '100ms' }),
    )
    const run = await waitForRun(run_id)
    expect(await rowsOf(run)).toMatchObject([
      {
        action: 'watchdog.auto_terminate',
        before: { status: 'waiting_on_tool', stuck_reason: 'tool_call.timeout(200ms)' },
        after: { status: 'failed', error_code: 'auto_terminated' },
      },
    ])
  })
})

describe('of what is no run, a row shows', () => {
  test('of an agent the hash of its definition, and nothing of its secrets', async () => {
    const agent = (model: string, key: string) => ({
      name: 'audited',
      models: [model],
      mcp: [{ url: 'http://127.0.0.1:9/mcp', headers: { authorization: key } }],
    })
    await post('/agents', agent('openai:one', 'hush-1'))
    await post('/agents', agent('openai:two', 'hush-2'))
    await request('DELETE', '/agents/audited')

    const rows = (await trail('')).filter(({ target }) => target === 'audited').toReversed()

    const [first, second] = rows.map(({ after }) => after?.['definition_hash'])
    expect(first).toMatch(/^[0-9a-f]{64}$/)
    expect(second).not.toBe(first)
    expect(rows.map(({ before, after }) => [before, after])).toEqual([
      [null, { definition_hash: first }],
      [{ definition_hash: first }, { definition_hash: second }],
      [{ definition_hash: second }, null],
    ])
    expect(JSON.stringify(await sql`select * from runlane.audit_events`)).not.toContain('hush')
  })

  test('of a sweep how many were stuck, before each of them has a row of its own', async () => {
    const run = await stuck()
    await post(`${RUNTIME}/sweep`, { reason: 'spring' })
    const [row] = await trail('action=agent_runtime.sweep')
    expect(row).toMatchObject({ before: { stuck: 1 }, after: { ordered: 1 } })
    expect(await rowsOf(run)).toMatchObject([{ action: 'agent_runtime.recycle' }])
  })
})

describe('the events of a run tell who did what, and why', () => {
  const by = 'token:admin'
  test.each([
    ['recycle', () => stuck(), `${RUNTIME}/runs/:id/recycle`, {}, 'failed'],
    ['stop', () => running(), `${RUNTIME}/runs/:id/stop`, {}, 'cancel_requested'],
    ['cancel', () => running(), '/runs/:id/cancel', {}, 'cancel_requested'],
    ['extend', () => running(), '/runs/:id/extend', { by: '1m' }, 'running'],
  ])('%s', async (kind, make, path, body, outcome) => {
    const run = await make()
    const reason = `to see ${kind}`
    const answer = await post(path.replace(':id', run.run_id), { ...body, reason })
    expect(answer.status).toBe(202)
    const told = await events(run.run_id, { visibility: 'operator' })
    const { command_id } = answer.body.command
    expect(toldOf(told, 'command_applied').map(({ payload }) => payload)).toEqual([
      { command_id, kind, by, reason, status: 'applied', outcome },
    ])
    if (outcome === 'running') await cancel(run.run_id)
  })

  test('sweep, and that a run has ended is the last thing of it', async () => {
    const run = await stuck()
    await post(`${RUNTIME}/sweep`, { reason: 'spring' })
    const told = await events(run.run_id)
    expect(told.slice(-2)).toMatchObject([
      { event_type: 'command_applied', payload: { kind: 'recycle', by, reason: 'spring' } },
      { event_type: 'run_status_changed', payload: { to: 'failed' } },
    ])
  })

  test('cancelling a run that waits ends it after telling who asked', async () => {
    const run_at = new Date(Date.now() + 3_600_000).toISOString()
    const run = await createRun(scripted([], { run_at }))
    await cancel(run.run_id)
    expect((await events(run.run_id)).slice(-2)).toMatchObject([
      { event_type: 'command_applied', payload: { kind: 'cancel', by } },
      { event_type: 'run_status_changed', payload: { to: 'cancelled' } },
    ])
  })
})

test('what others do to a run is no progress of it', async () => {
  const bad = await stuck()
  await post(`${RUNTIME}/runs/${bad.run_id}/recycle`, {})
  const recycled = await waitForRun(bad.run_id)
  expect(recycled['last_progress_at']).toBe(bad['last_progress_at'])
  expect(Date.parse(recycled['ended_at'])).toBeGreaterThan(Date.parse(bad['last_progress_at']))

  const good = await hanging()
  await post(`/runs/${good.run_id}/extend`, { by: '1m' })
  await cancel(good.run_id)
  const asked = (await get(`/runs/${good.run_id}`)).body
  expect(asked).toMatchObject({
    status: 'cancel_requested',
    last_progress_at: good['last_progress_at'],
  })
})

test('rows are one chain, newest first, which the deletion of their runs leaves whole', async () => {
  const run = await createRun(scripted([{ fail: 'x' }]))
  await waitForRun(run.run_id)
  await resume(run.run_id)
  await waitForRun(run.run_id)
  expect(await rowsOf(run)).toHaveLength(1)

  expect(await deleteExpired(sql as never, 1, 1_000)).toBeGreaterThan(5)

  expect((await get(`/runs/${run.run_id}`)).status).toBe(404)
  expect(await rowsOf(run)).toHaveLength(1)
  const rows = await trail('')

  expect(rows.length).toBeGreaterThan(5)
  expect(rows.map(({ id }) => id)).toEqual(rows.map((_, nth) => rows.length - nth))
  for (const { hash } of rows) expect(hash).toMatch(/^[0-9a-f]{64}$/)
  expect(await sql`select * from runlane.audit_verify()`).toEqual([])
})
