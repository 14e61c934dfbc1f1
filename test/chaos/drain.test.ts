import { afterEach, beforeEach, describe, expect, it } from 'vitest'
import { api } from '../support/api.ts'
import { effectProblems, historyProblems } from '../support/chaos-checks.ts'
import { answerUntilEnded } from '../support/chaos-human.ts'
import { type LoadedRun, planRun } from '../support/chaos-load.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { seeded } from '../support/random.ts'
import { type Service, type ServiceOptions, startService } from '../support/service.ts'
import { collectUntil, readSse } from '../support/sse.ts'
import { startTcpProxy, upstreamOf } from '../support/tcp-proxy.ts'

const databaseUrl = await freshDatabase()
const silentUrl = await freshDatabase()

let effects: EffectServer
const started: Service[] = []

const start = async (options: ServiceOptions): Promise<Service> => {
  const service = await startService(options)
  started.push(service)
  return service
}

beforeEach(async () => {
  effects = await startEffectServer()
})

afterEach(async () => {
  for (const service of started.splice(0)) await service.kill()
  await effects.close()
})

describe('SIGTERM', () => {
  it('hands runs over to another replica in the middle of the same attempt', async () => {
    const a = await start({ databaseUrl, env: { RUNLANE_NODE_ID: 'a' } })
    const b = await start({ databaseUrl, env: { RUNLANE_NODE_ID: 'b' } })
    const runs = await postMany(a, 80)
    await eventually(() => effects.calls.length > 20)
    await terminated(a)
    await finishedInOneAttempt(b, runs)
  }, 60_000)

  it('leaves runs of the embedded database to the next start, in the middle of the same attempt', async () => {
    const a = await start({})
    const runs = await postMany(a, 60)
    await eventually(() => effects.calls.length > 15)
    await terminated(a)
    const b = await start({ dataDir: a.dataDir })
    await finishedInOneAttempt(b, runs)
  }, 60_000)

  it('repeats a hanging idempotent call elsewhere under its key, and asks about a hanging unsafe one', async () => {
    const a = await start({ databaseUrl, env: { RUNLANE_NODE_ID: 'a' } })
    const post = (kind: string) =>
      api(a).createRun({
        agent: 'scripted',
        input: {
          steps: [{ http: effects.url, effects: kind, call_id: 'c1', body: { hang: true } }],
        },
      })
    const [idempotent, unsafe] = [await post('idempotent'), await post('unsafe')]
    await eventually(() => effects.calls.length === 2)
    const b = await start({ databaseUrl, env: { RUNLANE_NODE_ID: 'b' } })
    await terminated(a)

    const client = api(b)
    const repeated = effects.callsByKey().get(`${idempotent.run_id}:c1`)
    await eventually(() => effects.callsByKey().get(`${idempotent.run_id}:c1`)?.length === 2, {
      message: () => `the repetition of ${JSON.stringify(repeated)}`,
    })
    effects.release()
    expect(await client.waitForRun(idempotent.run_id)).toMatchObject({
      status: 'completed',
      attempt: 1,
    })
    const asked = await client.waitForRun(unsafe.run_id, {
      until: ({ status }) => status === 'waiting_on_human',
    })
    expect(asked).toMatchObject({ detail: 'unknown_tool_call', attempt: 1 })
    expect(effects.callsByKey().get(`${unsafe.run_id}:c1`)).toHaveLength(1)
    await client.respond(unsafe.run_id, { outcome: 'succeeded', result: 7 })
    const ended = await client.waitForRun(unsafe.run_id)
    expect(ended).toMatchObject({ status: 'completed', output: { results: [7] } })
  }, 60_000)

  it('says bye with a retry to the readers of event streams', async () => {
    const a = await start({})
    const { run_id } = await api(a).createRun({
      agent: 'scripted',
      input: { steps: [{ think: 60_000 }] },
    })
    const stream = readSse({ url: `${a.url}/runs/${run_id}/agent-events`, token: a.token })
    await collectUntil(stream, (frame) => frame.id !== undefined)
    const ended = terminated(a)
    const frames = await collectUntil(stream, (frame) => frame.event === 'bye', 10_000)
    expect(frames.at(-1)?.retry).toBeGreaterThan(0)
    await ended
  }, 60_000)

  it('ends the process in time although the database has gone silent', async () => {
    const proxy = await startTcpProxy(upstreamOf(silentUrl))
    const a = await start({ databaseUrl: proxy.url(silentUrl) })
    await api(a).createRun({ agent: 'scripted', input: { steps: [{ think: 60_000 }] } })
    proxy.pause()
    await terminated(a)
    await proxy.close()
  }, 60_000)
})

const terminated = async (service: Service): Promise<void> => {
  const sentAt = performance.now()
  const exit = await service.stop()
  expect(exit, service.stderr()).toEqual({ code: 0, signal: null })
  expect(performance.now() - sentAt).toBeLessThan(10_000)
}

const postMany = async (service: Service, count: number): Promise<LoadedRun[]> => {
  const random = seeded(4)
  const plans = Array.from({ length: count }, (_, nth) =>
    planRun({ effectUrl: effects.url, random, lanes: 20 }, `d${nth}`),
  )
  const runs = await api(service).createBatch(plans.map((plan) => plan.body))
  return plans.map((plan, nth) => ({ ...plan, runId: runs[nth]?.run_id ?? '' }))
}

const finishedInOneAttempt = async (
  service: Service,
  runs: readonly LoadedRun[],
): Promise<void> => {
  const { url } = service
  const retries = new Map()
  const ended = await answerUntilEnded(runs, { url, effects, retries, timeoutMs: 30_000 })
  expect(effectProblems({ runs, ended, effects, recorded: new Map(), retries })).toEqual([])
  expect(await historyProblems(url, runs, false)).toEqual([])
  expect(new Set(ended.values().map((run) => run.attempt))).toEqual(new Set([1]))
  const resumed = await Promise.all(runs.map((run) => api(service).events(run.runId)))
  const handedOver = resumed.filter((events) => events.some((e) => e.event_type === 'run_resumed'))
  expect(handedOver.length).toBeGreaterThan(0)
  const asked = resumed.flat().filter((event) => event.event_type === 'human_asked')
  expect(asked).toEqual([])
}
