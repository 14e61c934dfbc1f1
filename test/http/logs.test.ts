import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'
import { startTcpProxy, upstreamOf } from '../support/tcp-proxy.ts'
import { scripted } from './setup.ts'

type Line = Record<string, unknown> & { message: string }
const linesOf = (service: Service): Line[] =>
  service
    .stderr()
    .split('\n')
    .filter((text) => text !== '')
    .map((text) => JSON.parse(text) as Line)
/** The first line that says so, as soon as it is there. */
const told = (service: Service, message: string): Promise<Line> =>
  eventually(() => linesOf(service).find((line) => line.message === message), {
    message: () => `"${message}" in ${service.stderr()}`,
    timeoutMs: 20_000,
  })
const started = async (...given: Parameters<typeof startService>): Promise<Service> => {
  const service = await startService(...given)
  onTestFinished(() => void service.kill())
  return service
}
const [databaseUrl, ofReplicas] = [await freshDatabase(), await freshDatabase()]
const proxy = await startTcpProxy(upstreamOf(databaseUrl))
afterAll(() => proxy.close())
const HANG = scripted([{ tool: 'lost', hang: true, effects: 'idempotent' }])
const hanging = async (service: Service): Promise<string> => {
  const client = api(service)
  const { run_id } = await client.createRun(HANG)
  await client.waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_tool' })
  return run_id
}

describe('the life of a service in its log', () => {
  test('the start: what serves where, on what, with which settings, and no secret', async () => {
    const env = { RUNLANE_JWT_SECRET: 'hush-hush-hush-hush', RUNLANE_NODE_ID: 'n1' }
    const service = await started({ databaseUrl, env: { ...env, OPENAI_API_KEY: 'hush' } })

    const [registered, listens, ...more] = linesOf(service)

    expect(registered).toMatchObject({
      level: 'info',
      node_id: 'n1',
      epoch: expect.any(Number),
      lease_ms: 5_000,
      message: 'the node is registered',
    })
    expect(listens).toMatchObject({
      version: expect.stringMatching(/^\d+\.\d+\.\d+/),
      database: 'postgres',
      address: service.url,
      settings: {
        RUNLANE_LEASE: '5s',
        RUNLANE_NODE_ID: 'n1',
        DATABASE_URL: '[set]',
        RUNLANE_JWT_SECRET: '[set]',
        OPENAI_API_KEY: '[set]',
      },
      message: 'the service listens',
    })
    expect(listens?.['settings']).not.toHaveProperty('RUNLANE_JWKS_URL')
    expect(more).toEqual([])
    for (const secret of ['hush', service.token, databaseUrl])
      expect(service.stderr()).not.toContain(secret)
  })

  test('requests leave no line, whether they are served or refused', async () => {
    const service = await started()
    const [, listens] = linesOf(service)
    expect(listens).toMatchObject({ database: 'embedded' })
    const client = api(service)
    const run = await client.createRun(scripted([{ step: 'a' }]))
    await client.waitForRun(run.run_id)
    await client.post('/runs', { nonsense: true })
    await client.get('/runs/none')
    await api({ url: service.url, token: 'no' }).get('/runs')
    await client.cancel(run.run_id)
    expect(linesOf(service)).toHaveLength(2)
  })

  test('the end: how many runs were there, and how many were left', async () => {
    const service = await started({ databaseUrl })
    await hanging(service)
    await service.stop()
    expect(await told(service, 'the node drains')).toMatchObject({ runs: 1 })
    expect(await told(service, 'the node has drained')).toMatchObject({
      level: 'info',
      left: 0,
      drain_ms: expect.any(Number),
    })
  })
})

test('of a node that is lost: who adopted its runs, and that it came back without them', async () => {
  const env = { RUNLANE_LEASE: '1s' }
  const lost = await started({
    databaseUrl: ofReplicas,
    env: { ...env, RUNLANE_NODE_ID: 'lost' },
  })
  const run_id = await hanging(lost)
  const { epoch } = await told(lost, 'the node is registered')
  const heir = await started({ databaseUrl: ofReplicas, env: { ...env, RUNLANE_NODE_ID: 'heir' } })

  lost.freeze()
  const adopted = await told(heir, 'runs of a lost node were adopted')
  lost.thaw()

  expect(adopted).toMatchObject({
    level: 'warn',
    node_id: 'heir',
    from_node: 'lost',
    from_epoch: epoch,
    runs: 1,
    run_ids: [run_id],
  })
  expect(await told(lost, 'the lease was lost; registered again under a new epoch')).toMatchObject({
    level: 'warn',
    epoch: expect.any(Number),
    runs_dropped: expect.any(Number),
  })
})

test('of a database that is away: once that it is, what could not be served, and for how long it was', async () => {
  const service = await started({ databaseUrl: proxy.url(databaseUrl) })
  const client = api(service)

  proxy.refuse(true)
  proxy.cutAll()
  // Nobody asks for anything: the lease finds it out.
  await told(service, 'the database is away; decisions wait')
  const asked = { 'x-request-id': 'during-outage' }
  const answers = await Promise.all(
    Array.from({ length: 5 }, () => client.get('/runs/run_none', asked)),
  )
  expect(answers.map(({ status }) => status)).toEqual([503, 503, 503, 503, 503])
  expect(await told(service, 'requests cannot be served now')).toMatchObject({
    level: 'warn',
    request_id: 'during-outage',
    run_id: 'run_none',
    code: 'database_unavailable',
    method: 'GET',
    path: '/runs/run_none',
  })
  proxy.refuse(false)
  expect(await told(service, 'the database is back')).toMatchObject({
    level: 'info',
    away_ms: expect.any(Number),
  })

  const messages = linesOf(service).map(({ message }) => message)
  expect(messages.filter((message) => message.startsWith('the database is away'))).toHaveLength(1)
  expect(messages.filter((message) => message.startsWith('requests'))).toHaveLength(1)
})
