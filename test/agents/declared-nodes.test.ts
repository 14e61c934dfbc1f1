import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { declaration, declaredOutside, toldOf } from './declared-setup.ts'

const { model, effects, env } = await declaredOutside()
const [sharedUrl, ownUrl] = [await freshDatabase(), await freshDatabase()]
const start = (databaseUrl: string, node: string, concurrency = '10') =>
  startService({
    databaseUrl,
    env: { ...env, RUNLANE_NODE_ID: node, RUNLANE_CONCURRENCY: concurrency },
  })

describe('two services on one database', async () => {
  const services = await Promise.all([
    start(sharedUrl, 'left', '1'),
    start(sharedUrl, 'right', '1'),
  ])
  const [left, right] = services.map(api) as [ReturnType<typeof api>, ReturnType<typeof api>]
  afterAll(() => Promise.all(services.map((service) => service.kill())))

  test('know an agent as soon as it is posted to one of them, and both run it', async () => {
    const made = await left.post('/agents', declaration('shared', `${effects.url}/shared`))
    expect(made.status).toBe(201)
    expect((await right.get('/agents/shared')).body).toEqual(made.body)

    // Each node takes one run at a time: two that hang are on both.
    const input = { hang: true }
    model.script('shared', [{ calls: [{ name: 'act', input }] }, { text: 'done' }])
    const post = () => left.createRun({ agent: 'shared', input: { message: 'shared' } })
    const runs = [await post(), await post()]
    await eventually(() => effects.calls.filter(({ path }) => path === '/shared').length === 2)
    const under = await Promise.all(runs.map(({ run_id }) => left.run(run_id)))
    expect(new Set(under.map(({ node_id }) => node_id))).toEqual(new Set(['left', 'right']))
    effects.release()

    for (const { run_id } of runs)
      expect(await right.waitForRun(run_id)).toMatchObject({
        status: 'completed',
        output: { text: 'done' },
      })
  })

  test('run what an agent was replaced with on the other', async () => {
    const older = declaration('changing', `${effects.url}/older`)
    const newer = declaration('changing', `${effects.url}/newer`)
    expect((await left.post('/agents', older)).status).toBe(201)
    expect((await right.post('/agents', newer)).status).toBe(200)

    model.script('changing', [{ calls: [{ name: 'act', input: {} }] }, { text: 'done' }])
    const run = { agent: 'changing', input: { message: 'changing' } }
    const { run_id } = await left.createRun(run)
    expect(await left.waitForRun(run_id)).toMatchObject({ status: 'completed' })
    expect(effects.calls.filter(({ path }) => path === '/newer')).toHaveLength(1)
    expect(effects.calls.filter(({ path }) => path === '/older')).toEqual([])
  })

  test('refuse runs of an agent that was deleted on the other', async () => {
    await left.post('/agents', declaration('leaving', effects.url))
    expect((await right.request('DELETE', '/agents/leaving')).status).toBe(204)
    const refused = await left.post('/runs', { agent: 'leaving', input: { message: 'a' } })
    expect(refused).toMatchObject({ status: 422, body: { code: 'unknown_agent' } })
  })
})

describe('an agent that is deleted while runs of it are not over', async () => {
  const service = await start(ownUrl, 'own')
  const { post, request, createRun, waitForRun, get } = api(service)
  afterAll(() => service.kill())

  test('lets a run under way end, and fails one that has not begun', async () => {
    await post('/agents', declaration('going', `${effects.url}/going`, { effects: 'unsafe' }))
    model.script('going', [
      { calls: [{ name: 'act', input: { hang: true, reply: 'at last' } }] },
      { text: 'done' },
    ])
    const run = { agent: 'going', input: { message: 'going' }, conversation_id: 'going' }
    const [first, second] = [await createRun(run), await createRun(run)]
    await eventually(() => effects.calls.some(({ path }) => path === '/going'))
    expect((await get('/agents/going')).body.active_runs).toBe(1)
    expect((await request('DELETE', '/agents/going')).status).toBe(204)
    effects.release()

    expect(await waitForRun(first.run_id)).toMatchObject({ status: 'completed' })
    expect(toldOf(model, 'going')).toEqual(['"at last"'])
    expect(await waitForRun(second.run_id)).toMatchObject({
      status: 'failed',
      error_code: 'unknown_agent',
      error_message: expect.stringContaining('does not have the agent going'),
    })
  })
})

describe('after a crash and a restart', async () => {
  const databaseUrl = await freshDatabase()
  const service = await start(databaseUrl, 'crashing')
  const before = api(service)
  afterAll(() => service.kill())

  test('declared agents are there, and an idempotent call is made again with its key', async () => {
    const kept = declaration('kept', `${effects.url}/kept`, { effects: 'idempotent' })
    const asked = declaration('asked', `${effects.url}/asked`, { effects: 'unsafe' })
    for (const body of [kept, asked]) expect((await before.post('/agents', body)).status).toBe(201)
    const shown = (await before.get('/agents/kept')).body
    const input = { hang: true, reply: 'again' }
    for (const name of ['kept', 'asked'])
      model.script(name, [{ calls: [{ name: 'act', input }] }, { text: `${name} is done` }])
    const post = (agent: string) => before.createRun({ agent, input: { message: agent } })
    const [keptRun, askedRun] = [await post('kept'), await post('asked')]
    const callsTo = (path: string) => effects.calls.filter((call) => call.path === path)
    await eventually(() => callsTo('/kept').length === 1 && callsTo('/asked').length === 1)

    await service.kill()
    const restarted = await service.restart()
    onTestFinished(async () => void (await restarted.kill()))
    const after = api(restarted)
    expect((await after.get('/agents/kept')).body).toMatchObject({
      ...shown,
      active_runs: expect.any(Number),
    })
    await eventually(() => callsTo('/kept').length === 2)
    effects.release()

    expect(await after.waitForRun(keptRun.run_id)).toMatchObject({
      status: 'completed',
      output: { text: 'kept is done' },
    })
    const keys = callsTo('/kept').map(({ idempotencyKey }) => idempotencyKey)
    expect(new Set(keys).size).toBe(1)
    // Its model was asked once: what it had answered is recorded.
    expect(model.requestsOf('kept', 0)).toHaveLength(1)
    expect(toldOf(model, 'kept')).toEqual(['"again"'])

    await after.waitForRun(askedRun.run_id, {
      until: ({ status }) => status === 'waiting_on_human',
    })
    expect(callsTo('/asked')).toHaveLength(1)
    const answer = { outcome: 'succeeded', result: 'it did' }
    expect((await after.respond(askedRun.run_id, answer)).status).toBe(202)
    expect(await after.waitForRun(askedRun.run_id)).toMatchObject({ status: 'completed' })
    expect(toldOf(model, 'asked')).toEqual(['"it did"'])
    expect(callsTo('/asked')).toHaveLength(1)
  })
})
