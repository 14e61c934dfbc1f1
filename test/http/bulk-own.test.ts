/** Bulk actions of services, and what becomes of runs that cannot be had. */
import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { type Api, api, type Run } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const service = await startService({ databaseUrl, env: { RUNLANE_LEASE: '1s' } })
const sql = postgres(databaseUrl, { max: 1 })
afterAll(async () => {
  await service.kill()
  await sql.end()
})
const admin = api(service)
const as = async (name: string, role = 'service'): Promise<Api> => {
  const { body } = await admin.post('/api/v1/admin/tokens', { name, role })
  return api({ url: service.url, token: body.token })
}
const [ours, theirs] = [await as('ours'), await as('theirs')]

const bulk = (by: Api, action: string, filter: object, more = {}, headers = {}) =>
  by.post('/runs/bulk', { action, filter, reason: 'tidy', dry_run: false, ...more }, headers)
const dry = { dry_run: true }
const LATER = new Date(Date.now() + 3_600_000).toISOString()
const later = (by: Api, conversation_id: string): Promise<Run> =>
  by.createRun(scripted([], { run_at: LATER, conversation_id }))
const failed = async (by: Api, conversation_id: string, steps: object[]): Promise<Run> =>
  by.waitForRun((await by.createRun(scripted(steps, { conversation_id }))).run_id)
const idsOf = (runs: readonly { run_id: string }[]) => runs.map(({ run_id }) => run_id).toSorted()
const trailOf = (runId: string) =>
  sql`select actor, action, outcome, code, reason, target from runlane.audit_events
    where run_id = ${runId} order by id`

describe('a service', () => {
  test('cancels the runs that it created and that fit, and no other is counted, named or touched', async () => {
    const conversation_id = 'shared'
    const mine = [await later(ours, conversation_id), await later(ours, conversation_id)]
    const foreign = await later(theirs, conversation_id)

    const preview = await bulk(ours, 'cancel', { conversation_id }, dry)
    expect(preview).toMatchObject({ status: 200, body: { matched: 2, by_status: { queued: 2 } } })
    expect(preview.body.run_ids.toSorted()).toEqual(idsOf(mine))
    const done = await bulk(ours, 'cancel', { conversation_id })
    expect(done.body).toMatchObject({ applied: 2, refused: 0, next_cursor: null })
    expect(idsOf(done.body.results)).toEqual(idsOf(mine))

    for (const { run_id } of mine)
      expect(await admin.waitForRun(run_id)).toMatchObject({ status: 'cancelled' })
    expect(await admin.run(foreign.run_id)).toMatchObject({ status: 'queued' })
    expect(await trailOf(foreign.run_id)).toEqual([])
    const whole = await bulk(admin, 'cancel', { conversation_id }, dry)
    expect(whole.body.run_ids).toEqual([foreign.run_id])
  })

  test("another's run that it names is as one that is not there", async () => {
    const [mine, foreign] = [await later(ours, 'named'), await later(theirs, 'named')]
    const run_ids = [mine.run_id, foreign.run_id, 'run_none']

    const preview = await bulk(ours, 'cancel', { run_ids }, dry)
    expect(preview.body).toMatchObject({ matched: 1, run_ids: [mine.run_id] })
    const done = await bulk(ours, 'cancel', { run_ids }, {}, { 'idempotency-key': 'named' })
    const again = await bulk(ours, 'cancel', { run_ids }, {}, { 'idempotency-key': 'named' })

    expect(again.headers.get('idempotent-replayed')).toBe('true')
    for (const { body } of [done, again]) {
      expect(body).toMatchObject({ applied: 1, refused: 2 })
      const codes = body.results.map((one: Result) => [one.run_id, one.code])
      expect(Object.fromEntries(codes)).toEqual({
        [mine.run_id]: null,
        [foreign.run_id]: 'not_found',
        run_none: 'not_found',
      })
    }
    expect(await admin.run(foreign.run_id)).toMatchObject({ status: 'queued' })
  })

  test('resumes its own runs', async () => {
    const mine = await failed(ours, 'again', [{ fail: 'no luck' }])
    const foreign = await failed(theirs, 'again', [{ fail: 'no luck' }])
    const done = await bulk(ours, 'resume', { conversation_id: 'again' })
    expect(done.body.results).toEqual([{ run_id: mine.run_id, outcome: 'applied', code: null }])
    await admin.waitForRun(mine.run_id, { until: (run) => run.attempt === 2 })
    expect(await admin.run(foreign.run_id)).toMatchObject({ attempt: 1 })
  })

  test('does not go on with what its name has ordered as an operator', async () => {
    const conversation_id = 'demoted'
    const run = await later(theirs, conversation_id)
    const key = { 'idempotency-key': 'demoted' }
    await bulk(await as('moving', 'operator'), 'cancel', { conversation_id }, {}, key)
    expect(await admin.waitForRun(run.run_id)).toMatchObject({ status: 'cancelled' })
    const token = { name: 'moving', role: 'service', rotate: true }
    const { body } = await admin.post('/api/v1/admin/tokens', token)
    const demoted = api({ url: service.url, token: body.token })
    const again = await bulk(demoted, 'cancel', { conversation_id }, {}, key)
    expectProblem(again, { status: 409, code: 'idempotency_conflict' })
  })

  test('recycles nothing, as it may not recycle one', async () => {
    for (const more of [{}, dry])
      expectProblem(await bulk(ours, 'recycle', { conversation_id: 'shared' }, more), {
        ...{ status: 403, code: 'forbidden' },
      })
  })
})

test.each(['cancel', 'recycle', 'resume'])(
  'of a run that is not there each %s leaves the row that a single one would',
  async (action) => {
    const run_id = `run_none_${action}`
    const keyed = { 'idempotency-key': action }
    const single = action === 'resume' ? '/agent-runs/run_single/resume' : '/runs/run_single/cancel'
    await admin.post(single, {})

    await bulk(admin, action, { run_ids: [run_id] }, {}, keyed)
    await bulk(admin, action, { run_ids: [run_id] }, {}, keyed)

    expect(await trailOf(run_id)).toEqual([
      {
        ...{ actor: 'token:admin', action: `agent_runtime.${action}`, outcome: 'refused' },
        ...{ code: 'not_found', reason: 'tidy', target: run_id },
      },
    ])
    const [like] = await trailOf('run_single')
    expect(like).toMatchObject({ outcome: 'refused', code: 'not_found', target: 'run_single' })
    await bulk(admin, action, { run_ids: [run_id] })
    expect(await trailOf(run_id)).toHaveLength(2)
  },
)

describe('a dry run of resume says how many would be refused, and why', () => {
  const conversation_id = 'mixed'

  test('as the very action then does', async () => {
    await failed(admin, conversation_id, [{ fail: 'no luck' }])
    const open = { tool: 'pay', ms: 600_000, effects: 'unsafe' }
    const killed = await admin.createRun(scripted([open], { conversation_id, lane_key: 'killed' }))
    await admin.waitForRun(killed.run_id, { until: ({ tool }) => tool === 'pay' })
    const recycle = `/api/v1/admin/agent-runtime/runs/${killed.run_id}/recycle`
    await admin.post(recycle, { force: true })
    await admin.waitForRun(killed.run_id)
    const parent = scripted([
      { delegate: { agent: 'scripted', input: { steps: [{ fail: 'x' }] } } },
    ])
    await admin.waitForRun((await admin.createRun({ ...parent, conversation_id })).run_id)

    const preview = await bulk(admin, 'resume', { conversation_id }, dry)
    expect(preview.body).toMatchObject({
      matched: 3,
      would_refuse: { unknown_tool_call: 1, not_resumable: 1 },
    })
    const done = await bulk(admin, 'resume', { conversation_id })
    const codes = done.body.results.map((one: Result) => String(one.code)).toSorted()
    expect(codes).toEqual(['not_resumable', 'null', 'unknown_tool_call'])
  })

  test('of named runs too, and those that are not there are none of them', async () => {
    const over = await failed(admin, 'over', [])
    const run_ids = [over.run_id, 'run_none']
    expect((await bulk(admin, 'resume', { run_ids }, dry)).body).toMatchObject({
      ...{ matched: 1, would_refuse: { not_resumable: 1 } },
    })
  })

  test('with nothing to refuse it is empty, and other actions have none', async () => {
    const filter = { conversation_id: 'nowhere' }
    expect((await bulk(admin, 'resume', filter, dry)).body).toMatchObject({ would_refuse: {} })
    for (const action of ['cancel', 'recycle'])
      expect((await bulk(admin, action, filter, dry)).body).not.toHaveProperty('would_refuse')
  })
})

type Result = { run_id: string; code: string | null }
