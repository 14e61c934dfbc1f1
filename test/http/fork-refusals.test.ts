import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const service = await startService({ databaseUrl })
afterAll(() => service.kill())
const sql = postgres(databaseUrl, { max: 2 })
afterAll(() => sql.end())
const outside = await startEffectServer()
afterAll(() => outside.close())
const client = api(service)
const { createRun, waitForRun, get, post } = client

type Checkpoint = { checkpoint_id: string; type: string }
const checkpointsOf = async (runId: string): Promise<Checkpoint[]> =>
  (await get(`/runs/${runId}/checkpoints`)).body.checkpoints
const fork = (runId: string, checkpoint_id: string | undefined, headers = {}) =>
  post(`/runs/${runId}/fork`, { checkpoint_id }, headers)
const forksOf = (runId: string) =>
  sql<{ run_id: string }[]>`select r.run_id from runlane.agent_runs r
    join runlane.agent_run_payloads p using (run_id)
    where p.options -> 'forked_from' ->> 'run_id' = ${runId} order by r.run_id`
const callsNamed = (name: string): number =>
  outside.calls.filter(({ path }) => path === `/${name}`).length

describe('a call that has begun and not ended', () => {
  const hanging = (name: string, more = {}) => ({
    http: `${outside.url}/${name}`,
    body: { hang: true },
    call_id: name,
    ...more,
  })
  const quick = { http: `${outside.url}/quick`, call_id: 'quick' }
  const until = async (runId: string, count: number): Promise<Checkpoint[]> =>
    eventually(async () => {
      const checkpoints = await checkpointsOf(runId)
      return checkpoints.length === count && checkpoints
    })

  test('is in the way of a fork from a checkpoint after its beginning, until it ends', async () => {
    const { run_id } = await createRun(scripted([{ parallel: [hanging('pay'), quick] }]))
    const [, batch] = await until(run_id, 2)

    const refused = await fork(run_id, batch?.checkpoint_id)

    expectProblem(refused, { status: 409, code: 'unknown_tool_call' })
    expect(refused.body.unknown_calls).toEqual([{ tool_call_id: 'pay', tool: 'http' }])
    expect(refused.body.detail).toContain('pay (http)')
    expect(await forksOf(run_id)).toEqual([])
    const { audit } = (await get('/api/v1/admin/audit?action=run.fork')).body
    expect(audit).toMatchObject([{ run_id, outcome: 'refused', code: 'unknown_tool_call' }])

    outside.release()
    await waitForRun(run_id)
    const made = await fork(run_id, batch?.checkpoint_id)
    expect(made.status).toBe(202)
    // It had no outcome at the checkpoint: it is one of the later calls.
    await eventually(async () => callsNamed('pay') === 2)
    outside.release()
    await waitForRun(made.body.run_id)
    expect(callsNamed('quick')).toBe(1)
  })

  test('is none of a checkpoint before it', async () => {
    const { run_id } = await createRun(scripted([{ step: 'one' }, hanging('later')]))
    const [, before] = await until(run_id, 2)
    await eventually(async () => callsNamed('later') === 1)
    const { status, body } = await fork(run_id, before?.checkpoint_id)
    expect(status).toBe(202)
    await eventually(async () => callsNamed('later') === 2)
    outside.release()
    for (const id of [run_id, body.run_id])
      expect(await waitForRun(id)).toMatchObject({ status: 'completed' })
    expect(callsNamed('later')).toBe(2)
  })

  test('may be made again where it says so', async () => {
    const steps = [{ parallel: [hanging('ask', { effects: 'none' }), quick] }]
    const { run_id } = await createRun(scripted(steps))
    const [, batch] = await until(run_id, 2)
    const { status, body } = await fork(run_id, batch?.checkpoint_id)
    expect(status).toBe(202)
    await eventually(async () => callsNamed('ask') === 2)
    outside.release()
    for (const id of [run_id, body.run_id])
      expect(await waitForRun(id)).toMatchObject({ status: 'completed' })
  })
})

test('several checkpoints of one commit are told apart', async () => {
  const steps = Array.from({ length: 12 }, (_, n) => ({ journal: { objective: `${n}` } }))
  const { run_id } = await createRun(scripted(steps))
  await waitForRun(run_id)
  const [{ commits } = { commits: 0 }] = await sql<{ commits: number }[]>`
    select count(distinct created_at)::int as commits from runlane.agent_events
    where run_id = ${run_id} and event_type = 'journal_updated'`
  expect(commits).toBeLessThan(steps.length)

  const rewritten: number[] = []
  for (const { checkpoint_id } of await checkpointsOf(run_id)) {
    const { body } = await fork(run_id, checkpoint_id)
    expect(await waitForRun(body.run_id)).toMatchObject({ status: 'completed' })
    const events = await client.events(body.run_id)
    rewritten.push(events.filter(({ event_type }) => event_type === 'journal_updated').length)
  }

  expect(rewritten).toEqual([...steps.map((_, n) => steps.length - n), 0, 0])
})

describe('a run that cannot be forked', () => {
  const stepped = async (): Promise<string> => {
    const { run_id } = await createRun(scripted([{ step: 'one' }, { step: 'two' }]))
    await waitForRun(run_id)
    return run_id
  }

  test('is one whose calls an earlier version recorded, but from its beginning', async () => {
    const run_id = await stepped()
    await sql`update runlane.agent_tool_results set begun_after = null, settled_after = null
      where run_id = ${run_id}`
    const [input, one] = await checkpointsOf(run_id)
    const refused = await fork(run_id, one?.checkpoint_id)
    expectProblem(refused, { status: 409, code: 'not_forkable' })
    const { status, body } = await fork(run_id, input?.checkpoint_id)
    expect(status).toBe(202)
    expect(await waitForRun(body.run_id)).toMatchObject({ status: 'completed' })
  })

  test('has more calls than one commit should copy', async () => {
    const run_id = await stepped()
    await sql`insert into runlane.agent_tool_results (run_id, tool_call_id, position, settled, kind, tool, outcome,
        attempt, begun_after, settled_after)
      select ${run_id}, 'many_' || n, 2 + n, 2 + n, 'step', 'many', 'succeeded', 1, 4, 4
      from generate_series(1, 10000) as n`
    const refused = await fork(run_id, (await checkpointsOf(run_id)).at(-1)?.checkpoint_id)
    expectProblem(refused, { status: 409, code: 'not_forkable' })
    expect(refused.body.detail).toContain('10002 calls')
  })

  test('is being deleted', async () => {
    const run_id = await stepped()
    const [, one] = await checkpointsOf(run_id)
    await sql
      .begin(async (transaction) => {
        await transaction`delete from runlane.agent_runs where run_id = ${run_id}`
        const refused = await fork(run_id, one?.checkpoint_id)
        expectProblem(refused, { status: 404, code: 'not_found' })
        throw new Error('changed our mind')
      })
      .catch(() => {})
    expect(await forksOf(run_id)).toEqual([])
    expect((await fork(run_id, one?.checkpoint_id)).status).toBe(202)
  })
})

test('kill -9 leaves forks whole or not at all, and their keys make them once', async () => {
  const url = await freshDatabase()
  const env = { RUNLANE_LEASE: '1s' }
  let node = await startService({ databaseUrl: url, env })
  const rows = postgres(url, { max: 1 })
  try {
    const steps = Array.from({ length: 60 }, (_, n) => ({ step: `s${n}`, result: 'x'.repeat(500) }))
    const { run_id } = await api(node).createRun(scripted(steps))
    await api(node).waitForRun(run_id)
    const { checkpoints } = (await api(node).get(`/runs/${run_id}/checkpoints?limit=1000`)).body
    const checkpoint_id = checkpoints[40].checkpoint_id
    const all = () =>
      Promise.allSettled(
        Array.from({ length: 40 }, (_, n) =>
          api(node).post<Run>(
            `/runs/${run_id}/fork`,
            { checkpoint_id },
            { 'idempotency-key': `fork-${n}` },
          ),
        ),
      )
    const forks = () => rows<{ run_id: string; calls: number; events: number; audits: number }[]>`
      select r.run_id,
        (select count(*)::int from runlane.agent_tool_results t where t.run_id = r.run_id and t.attempt = 0) as calls,
        (select count(*)::int from runlane.agent_events e where e.run_id = r.run_id and e.sequence <= 4) as events,
        (select count(*)::int from runlane.audit_events a where a.after ->> 'run_id' = r.run_id) as audits
      from runlane.agent_runs r where r.run_id <> ${run_id}`
    const asked = all()
    await eventually(async () => (await forks()).length > 0)
    await node.kill()
    await asked
    const whole = { calls: 40, events: 4, audits: 1 }
    for (const one of await forks()) expect(one).toMatchObject(whole)

    node = await startService({ databaseUrl: url, env })
    const answers = await all()

    const ids = answers.map((one) => (one.status === 'fulfilled' ? one.value.body.run_id : 'lost'))
    const made = await forks()
    expect(made).toHaveLength(40)
    expect(made.map((one) => one.run_id).toSorted()).toEqual(ids.toSorted())
    for (const one of made) {
      expect(one).toMatchObject(whole)
      expect(await api(node).waitForRun(one.run_id)).toMatchObject({ status: 'completed' })
    }
  } finally {
    await node.kill()
    await rows.end()
  }
})

test('the embedded database forks as well: a run that asks, from before its question', async () => {
  const first = await startService({})
  const steps = [{ step: 'one' }, { tool: 'pay', ms: 60_000, call_id: 'pay' }]
  const { run_id } = await api(first).createRun(scripted(steps))
  await api(first).waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_tool' })
  await first.kill()
  const next = await startService({ dataDir: first.dataDir })
  try {
    const there = api(next)
    await there.waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_human' })
    const { checkpoints } = (await there.get(`/runs/${run_id}/checkpoints`)).body
    expect(checkpoints.map(({ type }: Checkpoint) => type)).toEqual([
      'input',
      'tool_result',
      'human_pause',
    ])
    const from = (n: number) =>
      there.post(`/runs/${run_id}/fork`, { checkpoint_id: checkpoints[n].checkpoint_id })
    expectProblem(await from(2), { status: 409, code: 'unknown_tool_call' })
    const copy = (await from(1)).body as Run
    await there.waitForRun(copy.run_id, { until: ({ status }) => status === 'waiting_on_tool' })

    await there.respond(run_id, { outcome: 'succeeded', result: 'paid' })
    const ended = await there.waitForRun(run_id)
    const answered = (await there.get(`/runs/${run_id}/checkpoints`)).body.checkpoints[3]
    expect(answered.type).toBe('tool_result')
    const { body } = await there.post(`/runs/${run_id}/fork`, {
      checkpoint_id: answered.checkpoint_id,
    })
    expect((await there.waitForRun(body.run_id)).output).toEqual(ended.output)
  } finally {
    await next.kill()
  }
})
