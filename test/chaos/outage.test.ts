import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { api, type ApiResponse } from '../support/api.ts'
import { effectProblems, historyProblems, watchRecords } from '../support/chaos-checks.ts'
import { answerUntilEnded, type Retries } from '../support/chaos-human.ts'
import { SEED } from '../support/chaos-kills.ts'
import { type Load, startLoad } from '../support/chaos-load.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { type PostgresServer, startPostgres } from '../support/postgres.ts'
import { type Random, seeded } from '../support/random.ts'
import { type Service, startService } from '../support/service.ts'
import { startTcpProxy, type TcpProxy, upstreamOf } from '../support/tcp-proxy.ts'

const OUTAGE_MS = Number(process.env['CHAOS_OUTAGE_MS'] ?? 30_000)
const FAULTS = Number(process.env['CHAOS_FAULTS'] ?? 40)

let server: PostgresServer
let proxy: TcpProxy
let effects: EffectServer
let services: Service[]
let random: Random

beforeAll(async () => {
  random = seeded(SEED)
  server = await startPostgres()
  proxy = await startTcpProxy(upstreamOf(server.url))
  effects = await startEffectServer()
  const databaseUrl = proxy.url(server.url)
  const start = (id: string) => startService({ databaseUrl, env: { RUNLANE_NODE_ID: id } })
  services = await Promise.all([start('a'), start('b')])
})

afterAll(async () => {
  for (const service of services ?? []) await service.kill()
  await effects?.close()
  await proxy?.close()
  await server?.remove()
})

it(`goes on by itself after Postgres was away for ${OUTAGE_MS} ms under load`, async () => {
  const { load, finish } = underLoad()
  await eventually(() => load.acknowledged.length > 30, { message: 'load' })
  const before = load.acknowledged.length
  await server.stopHard()
  const stoppedAt = performance.now()
  await eventually(async () => isUnavailable((await posted()).answer), {
    timeoutMs: 15_000,
    message: 'a 503 of POST /runs',
  })
  while (performance.now() - stoppedAt < OUTAGE_MS) {
    const { answer, ms } = await posted()
    expect(isUnavailable(answer), JSON.stringify(answer)).toBe(true)
    expect(ms).toBeLessThan(3_000)
    for (const { url } of services) {
      expect(await statusOf(`${url}/healthz`)).toBe(200)
      expect(await statusOf(`${url}/readyz`)).toBe(503)
    }
    await pause(250)
  }
  await server.start()
  await eventually(() => load.acknowledged.length > before + 30, {
    timeoutMs: 20_000,
    message: 'new runs after the outage',
  })
  await finish()
  // Those under way when it went away wait for it for a while.
  expect(load.slowestPostMs()).toBeLessThan(15_000)
}, 240_000)

it(`loses and repeats nothing over ${FAULTS} cut connections and lost replies under load`, async () => {
  const { finish } = underLoad()
  const sql = postgres(server.url, { max: 1, onnotice: () => {} })
  let dropped = 0
  const faults = [
    async () =>
      void (await sql`select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'runlane'`),
    async () => proxy.cutAll(),
    async () => {
      const drop = proxy.dropNextCommitReply(1 + random.int(2))
      await Promise.race([drop.dropped.catch(() => {}), pause(3_000)])
      dropped += drop.replies.length
      drop.disarm()
    },
    async () => {
      proxy.pause()
      await pause(random.int(1_000))
      proxy.resume()
    },
  ]
  try {
    for (let nth = 0; nth < FAULTS; nth += 1) {
      await faults[nth % faults.length]?.()
      await pause(100 + random.int(700))
    }
    await finish()
    expect(dropped).toBeGreaterThan(FAULTS / 8)
  } finally {
    await sql.end()
  }
}, 240_000)

/** `finish` ends the load and holds everything that happened against the promises; nothing may be adopted. */
const underLoad = (): { load: Load; finish(): Promise<void> } => {
  const url = services[0]?.url ?? ''
  const retries: Retries = new Map()
  const urls = () => services.map((service) => service.url)
  const scope = effects.calls.length
  const load = startLoad({ urls, effectUrl: effects.url, random, everyMs: 150 })
  const watch = watchRecords(url, () => load.acknowledged, random)
  const finish = async (): Promise<void> => {
    await load.stop()
    const runs = load.acknowledged
    const ended = await answerUntilEnded(runs, { url, effects, retries, timeoutMs: 60_000 })
    await watch.stop()
    const { recorded } = watch
    const mine: EffectServer = { ...effects, calls: effects.calls.slice(scope) }
    console.info({
      runs: runs.length,
      refusals: Object.fromEntries(load.refusals),
      retries: retries.size,
    })
    expect(
      effectProblems({ runs, ended, effects: mine, recorded, retries }),
      `seed ${SEED}`,
    ).toEqual([])
    expect(await historyProblems(url, runs, false), `seed ${SEED}`).toEqual([])
  }
  return { load, finish }
}

const posted = async (): Promise<{ answer: ApiResponse | undefined; ms: number }> => {
  const sentAt = performance.now()
  const body = { agent: 'scripted', input: { steps: [] } }
  const answer = await api(random.pick(services))
    .request('POST', '/runs', { body, signal: AbortSignal.timeout(12_000) })
    .catch(() => undefined)
  return { answer, ms: performance.now() - sentAt }
}

const statusOf = async (url: string): Promise<number> =>
  (await fetch(url, { signal: AbortSignal.timeout(5_000) })).status

const isUnavailable = (answer: ApiResponse | undefined): boolean =>
  answer?.status === 503 && answer.body.code === 'database_unavailable'
