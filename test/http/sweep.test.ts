import { afterAll, describe, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const service = await startService({
  databaseUrl: await freshDatabase(),
  env: { RUNLANE_WATCHDOG_TOOL: '300ms', RUNLANE_WATCHDOG_INTERVAL: '50ms' },
})
afterAll(() => service.kill())
const { get, post, createRun, waitForRun, cancel } = api(service)

const BASE = '/api/v1/admin/agent-runtime'
const hanging = (): Promise<Run> => createRun(scripted([{ tool: 'lost', hang: true }]))
const stuck = (run: Run): Promise<Run> =>
  waitForRun(run.run_id, { until: (one) => one['stuck_reason'] !== null })

test('sweep recycles every stuck run and nobody else', async () => {
  const bad = await Promise.all([hanging(), hanging(), hanging()])
  const good = await createRun(scripted([{ think: 60_000 }]))
  for (const run of bad) await stuck(run)

  const key = { 'idempotency-key': 'once' }
  const { status, body } = await post(`${BASE}/sweep`, { reason: 'spring' }, key)

  expect(status).toBe(200)
  expect(body.run_ids.toSorted()).toEqual(bad.map((run) => run.run_id).toSorted())
  expect(body.recycled).toBe(3)
  for (const run of bad) expect(await waitForRun(run.run_id)).toMatchObject({ status: 'failed' })
  expect((await get(`/runs/${good.run_id}`)).body.status).toBe('running')
  expect((await post(`${BASE}/sweep`, { reason: 'spring' }, key)).body).toEqual(body)
  expect((await post(`${BASE}/sweep`, {})).body).toEqual({ recycled: 0, run_ids: [] })
  await cancel(good.run_id)
})

describe('a sweep under a key', () => {
  const sweep = (key: string, body: object = {}) =>
    post(`${BASE}/sweep`, body, { 'idempotency-key': key })

  test('that found nobody stays so when it is repeated', async () => {
    expect((await sweep('nobody')).body).toEqual({ recycled: 0, run_ids: [] })
    const bad = await stuck(await hanging())

    const again = await sweep('nobody')

    expect(again.body).toEqual({ recycled: 0, run_ids: [] })
    expect(again.headers.get('idempotent-replayed')).toBe('true')
    expectProblem(await sweep('nobody', { reason: 'other' }), {
      status: 409,
      code: 'idempotency_conflict',
    })
    expect((await sweep('nobody#1')).body.run_ids).toEqual([bad.run_id])
  })

  test('is one sweep, however often it is asked for at once', async () => {
    const bad = await Promise.all(Array.from({ length: 8 }, () => hanging()))
    for (const run of bad) await stuck(run)
    const ids = bad.map((run) => run.run_id).toSorted()

    const answers = await Promise.all(Array.from({ length: 4 }, () => sweep('at once')))

    for (const { body } of answers) expect(body.run_ids.toSorted()).toEqual(ids)
    const { audit } = (await get('/api/v1/admin/audit?action=agent_runtime.sweep')).body
    expect(audit[0]).toMatchObject({ before: { stuck: 8 }, after: { ordered: 8 } })
    expect(
      audit.filter((row: { before: { stuck: number } }) => row.before.stuck === 8),
    ).toHaveLength(1)
  })
})
