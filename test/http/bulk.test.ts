import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const service = await startService({
  databaseUrl,
  env: { RUNLANE_WATCHDOG_TOOL: '300ms', RUNLANE_WATCHDOG_INTERVAL: '50ms' },
})
const sql = postgres(databaseUrl, { max: 1 })
afterAll(async () => {
  await service.kill()
  await sql.end()
})
const admin = api(service)
const { post, createRun, createBatch, waitForRun } = admin
const { body: made } = await post('/api/v1/admin/tokens', { name: 'olga', role: 'operator' })
const operator = api({ url: service.url, token: made.token })

const PATH = '/runs/bulk'
const reason = 'spring'
const bulk = (action: string, filter: object, more = {}, headers = {}) =>
  post(PATH, { action, filter, reason, dry_run: false, ...more }, headers)
const keyed = (key: string) => ({ 'idempotency-key': key })
const LATER = new Date(Date.now() + 3_600_000).toISOString()
const later = (count: number, more = {}): Promise<Run[]> =>
  createBatch(Array.from({ length: count }, () => scripted([], { run_at: LATER, ...more })))
const thinking = async (more = {}): Promise<Run> => {
  const { run_id } = await createRun(scripted([{ think: 600_000 }], more))
  return waitForRun(run_id, { until: ({ status }) => status === 'running' })
}
const idsOf = (runs: readonly { run_id: string }[]) => runs.map(({ run_id }) => run_id).toSorted()
const trailOf = (action: string, reasonGiven: string) =>
  sql`select run_id, outcome, code, before, after from runlane.audit_events
    where action = ${action} and reason = ${reasonGiven} order by id`

describe('a dry run', () => {
  test('is what is done by default: counts by status, the first ids, and nothing changes', async () => {
    const conversation_id = 'dry'
    const runs = [await thinking({ conversation_id }), ...(await later(2, { conversation_id }))]
    const over = await createRun(scripted([], { conversation_id, lane_key: 'over' }))
    await waitForRun(over.run_id)

    const { status, body } = await post(PATH, {
      action: 'cancel',
      filter: { conversation_id },
      reason,
    })

    expect({ status, ids: body.run_ids.toSorted() }).toEqual({ status: 200, ids: idsOf(runs) })
    expect(body).toMatchObject({
      ...{ action: 'cancel', dry_run: true, matched: 3, truncated: false },
      by_status: { running: 1, queued: 2 },
    })
    expect(body).not.toHaveProperty('results')
    for (const { run_id, status: before } of runs)
      expect(await admin.run(run_id)).toMatchObject({ status: before, cancel_requested: false })
    expect(await trailOf('agent_runtime.bulk', reason)).toEqual([])
    await bulk('cancel', { conversation_id }, { reason: 'tidy' })
  })
})

describe('cancel', () => {
  test('ends every run that fits the filter and no other, audited as a whole and one by one', async () => {
    const queue = 'default'
    const mine = [await thinking({ conversation_id: 'x' }), ...(await later(3, { owner: '@ana' }))]
    const other = await later(1)
    const filter = { run_ids: idsOf(mine), queue, status: ['running', 'queued'] }

    const { body } = await bulk('cancel', filter, { reason: 'all of it' })

    expect(body).toMatchObject({ applied: 4, refused: 0, truncated: false, next_cursor: null })
    expect(idsOf(body.results)).toEqual(idsOf(mine))
    for (const { run_id } of mine)
      expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled' })
    expect(await admin.run(other[0]?.run_id ?? '')).toMatchObject({ status: 'queued' })
    expect(await trailOf('agent_runtime.bulk', 'all of it')).toMatchObject([
      {
        ...{ run_id: null, outcome: 'applied' },
        before: { action: 'cancel', filter: { run_ids: 4, queue } },
        after: { runs: 4, next_cursor: null },
      },
    ])
    const rows = await trailOf('agent_runtime.cancel', 'all of it')
    expect(idsOf(rows as never)).toEqual(idsOf(mine))
  })

  test('of named runs answers for each, those that are over and those that nobody knows too', async () => {
    const over = await createRun(scripted([]))
    await waitForRun(over.run_id)
    const [open] = await later(1)
    const run_ids = [over.run_id, open?.run_id, 'run_none', over.run_id]
    const { body } = await bulk('cancel', { run_ids })
    expect(body).toMatchObject({ applied: 1, refused: 2 })
    expect(Object.fromEntries(body.results.map((one: Json) => [one.run_id, one.code]))).toEqual({
      [over.run_id]: 'not_cancellable',
      [open?.run_id ?? '']: null,
      run_none: 'not_found',
    })
  })

  test('starts none of the runs that wait in the lane of one that it ends', async () => {
    const conversation_id = 'one-lane'
    await thinking({ conversation_id })
    const line = Array.from({ length: 60 }, () => scripted([{ step: 's' }], { conversation_id }))
    await createBatch(line)
    const { body } = await bulk('cancel', { conversation_id })
    expect(body).toMatchObject({ applied: 61, refused: 0 })
    for (const { run_id } of body.results)
      expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled' })
    const [started] = await sql`select count(*)::int as n from runlane.agent_runs
      where conversation_id = ${conversation_id} and started_at is not null`
    expect(started).toEqual({ n: 1 })
  })

  test('takes 1,000 runs in a call, and goes on where the one before has ended', async () => {
    const agent = 'scripted:many'
    const runs = [...(await later(1_000, { agent })), ...(await later(5, { agent }))]
    const preview = await bulk('cancel', { agent }, { dry_run: true })
    expect(preview.body).toMatchObject({ matched: 1_005, truncated: true })
    expect(preview.body.run_ids).toHaveLength(100)

    const first = await bulk('cancel', { agent, status: 'queued' })
    expect(first.body).toMatchObject({ applied: 1_000, truncated: true })
    const rest = await bulk('cancel', { agent }, { cursor: first.body.next_cursor })
    expect(rest.body).toMatchObject({ applied: 5, truncated: false, next_cursor: null })
    expect(idsOf([...first.body.results, ...rest.body.results])).toEqual(idsOf(runs))
  })
})

describe('under a key', () => {
  test('a repetition is about the same runs, does nothing twice and says so', async () => {
    const agent = 'scripted:keyed'
    const runs = await later(3, { agent })
    const first = await bulk('cancel', { agent }, { reason: 'once' }, keyed('k1'))
    const newer = await later(1, { agent })

    const again = await bulk('cancel', { agent }, { reason: 'once' }, keyed('k1'))

    expect(idsOf(first.body.results)).toEqual(idsOf(runs))
    expect(again.headers.get('idempotent-replayed')).toBe('true')
    expect(again.body).toEqual(first.body)
    expect(await admin.run(newer[0]?.run_id ?? '')).toMatchObject({ status: 'queued' })
    expect(await trailOf('agent_runtime.bulk', 'once')).toHaveLength(1)
    expect(await trailOf('agent_runtime.cancel', 'once')).toHaveLength(3)
    const other = await bulk('cancel', { agent }, { reason: 'other' }, keyed('k1'))
    expectProblem(other, { status: 409, code: 'idempotency_conflict' })
    expect(other.body).not.toHaveProperty('made')
    await bulk('cancel', { agent })
  })

  test('one that broke off goes on with the runs that are left', async () => {
    const agent = 'scripted:broken'
    const runs = await later(3, { agent })
    const whole = await bulk('cancel', { agent }, { reason: 'torn' }, keyed('torn'))
    expect(whole.body.applied).toBe(3)
    const [left] = await later(1, { agent })
    // As it is after a kill between two of the commands: the plan has a run that has none yet.
    await sql`update runlane.request_keys set target = replace(target, ${runs[1]?.run_id ?? ''}, ${left?.run_id ?? ''})
      where key like '%:torn'`
    const again = await bulk('cancel', { agent }, { reason: 'torn' }, keyed('torn'))
    expect(again.body).toMatchObject({ applied: 3, refused: 0 })
    expect(await waitForRun(left?.run_id ?? '')).toMatchObject({ status: 'cancelled' })
    expect(await trailOf('agent_runtime.cancel', 'torn')).toHaveLength(4)
  })

  test('many that come at once do it once', async () => {
    const agent = 'scripted:rush'
    await later(4, { agent })
    const answers = await Promise.all(
      Array.from({ length: 5 }, () => bulk('cancel', { agent }, { reason: 'rush' }, keyed('rush'))),
    )
    for (const { status, body } of answers)
      expect({ status, applied: body.applied }).toEqual({ status: 200, applied: 4 })
    expect(await trailOf('agent_runtime.bulk', 'rush')).toHaveLength(1)
    expect(await trailOf('agent_runtime.cancel', 'rush')).toHaveLength(4)
  })
})

describe('recycle', () => {
  const stuck = async () => {
    const run = await createRun(scripted([{ tool: 'lost', hang: true }]))
    return waitForRun(run.run_id, { until: (one) => one['stuck_reason'] !== null })
  }

  test('ends the stuck ones among those that fit', async () => {
    const [bad, well] = [await stuck(), await thinking()]
    const { body } = await bulk('recycle', { status: ['waiting_on_tool', 'running'] })
    expect(body.results).toEqual([{ run_id: bad.run_id, outcome: 'applied', code: null }])
    expect(await waitForRun(bad.run_id)).toMatchObject({ error_code: 'recycled' })
    const named = await bulk('recycle', { run_ids: [well.run_id] })
    expect(named.body.results).toMatchObject([{ outcome: 'refused', code: 'not_stuck' }])
    await admin.cancel(well.run_id)
  })

  test('is for admins, a dry run of it too, while operators may cancel and resume', async () => {
    const filter = { agent: 'nobody' }
    for (const dry_run of [true, false]) {
      const asked = (action: string) => operator.post(PATH, { action, filter, reason, dry_run })
      expectProblem(await asked('recycle'), { status: 403, code: 'forbidden' })
      for (const action of ['cancel', 'resume']) expect((await asked(action)).status).toBe(200)
    }
  })
})

test('resume puts back in line what failed, and says of each why not', async () => {
  const conversation_id = 'again'
  const failed = await createRun(scripted([{ fail: 'no luck' }], { conversation_id }))
  await waitForRun(failed.run_id)
  const gone = await createRun(scripted([{ think: 60_000 }], { conversation_id }))
  await admin.cancel(gone.run_id)
  await waitForRun(gone.run_id)
  const named = await bulk('resume', { conversation_id, run_ids: [gone.run_id] })
  expect(named.body.results).toMatchObject([{ outcome: 'refused', code: 'not_resumable' }])
  const { body } = await bulk('resume', { conversation_id })
  expect(body.results).toEqual([{ run_id: failed.run_id, outcome: 'applied', code: null }])
  await waitForRun(failed.run_id, {
    until: (run) => run['attempt'] === 2 && run.status === 'failed',
  })
})

describe('is refused', () => {
  test.each([
    ['a filter that says nothing', { filter: {} }, ['filter']],
    ['a filter of nothing but false', { filter: { stuck: false, orphan: false } }, ['filter']],
    ['no filter', { filter: undefined }, ['filter']],
    ['an unknown field', { filter: { agent: 'x', agnet: 'x' } }, ['filter.agnet']],
    ['an unknown status', { filter: { status: ['runing'] } }, ['filter.status[0]']],
    ['no run', { filter: { run_ids: [] } }, ['filter.run_ids']],
    ['no reason', { reason: undefined }, ['reason']],
    ['an empty reason', { reason: '' }, ['reason']],
    ['another action', { action: 'extend' }, ['action']],
    ['a cursor of something else', { cursor: 'x' }, ['cursor']],
  ])('%s', async (_what, change, paths) => {
    const body = { action: 'cancel', filter: { agent: 'x' }, reason, ...change }
    expectProblem(await post(PATH, body), { status: 422, code: 'validation_error', paths })
  })
})

test('where nothing is an orphan, an action on orphans takes no run', async () => {
  const [run] = await later(1)
  const { body } = await bulk('cancel', { orphan: true })
  expect(body).toMatchObject({ applied: 0, results: [] })
  expect(await admin.run(run?.run_id ?? '')).toMatchObject({ status: 'queued' })
})

type Json = { run_id: string; code: string | null }
