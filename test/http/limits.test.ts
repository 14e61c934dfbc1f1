import { Agent, request as send } from 'node:http'
import { text } from 'node:stream/consumers'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { bySecretKey, SECRET } from '../support/jwt.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const PER_SECOND = 20
/** Streams and waits that one caller may hold open. */
const CONNECTIONS = 2_000

const databaseUrl = await freshDatabase()
const [strict, open] = await Promise.all([
  startService({
    databaseUrl,
    env: {
      RUNLANE_RATE_LIMIT: String(PER_SECOND),
      RUNLANE_JWT_SECRET: SECRET,
      RUNLANE_NODE_ID: 'strict',
    },
  }),
  startService({ databaseUrl, env: { RUNLANE_RATE_LIMIT: '1000000', RUNLANE_NODE_ID: 'open' } }),
])
afterAll(() => Promise.all([strict.kill(), open.kill()]))
const sql = postgres(databaseUrl, { max: 1 })
afterAll(() => sql.end())
const admin = api(open)

const newToken = async (name: string, role: string): Promise<string> => {
  const { token } = (await admin.post('/api/v1/admin/tokens', { name, role })).body
  // After a flood of wrong ones from here, a token that was never seen has to wait for the next second.
  await eventually(async () => (await api({ url: open.url, token }).get('/session')).status === 200)
  return token
}

describe('requests of one caller', () => {
  test('beyond the limit are 429 and do nothing; those of others go on; a second later it may again', async () => {
    const hasty = api({ url: strict.url, token: await newToken('hasty', 'service') })
    const calm = api({ url: strict.url, token: await newToken('calm', 'viewer') })
    const named = api({ url: strict.url, token: await bySecretKey({ sub: 'ana' }) })

    const burst = await Promise.all(
      Array.from({ length: PER_SECOND * 3 }, () => hasty.post('/runs', scripted([]))),
    )

    const taken = burst.filter(({ status }) => status === 202).length
    const refused = burst.filter(({ status }) => status !== 202)
    // A slow machine may take more than a second for them, and then two seconds' worth is taken.
    expect(refused.length).toBeGreaterThan(0)
    expect(taken).toBeGreaterThanOrEqual(PER_SECOND)
    for (const response of refused) {
      expectProblem(response, { status: 429, code: 'rate_limited' })
      expect(response.headers.get('retry-after')).toBe('1')
      expect(response.body.retry_after_ms).toBeGreaterThan(0)
      expect(response.body.retry_after_ms).toBeLessThanOrEqual(1_000)
    }
    const [row] =
      await sql`select count(*)::int as n from runlane.agent_runs where created_by = 'token:hasty'`
    expect(row?.['n']).toBe(taken)
    for (const other of [calm, named]) expect((await other.get('/runs')).status).toBe(200)
    await eventually(async () => (await hasty.get('/runs')).status === 200)
  })

  test('count whichever way they come: by header and by cookie, and however they end', async () => {
    const token = await newToken('twofold', 'viewer')
    const url = strict.url
    const login = await api({ url }).post('/session', { token })
    const cookie = login.headers.getSetCookie()[0]?.split(';')[0] ?? ''
    const ways = [
      () => api({ url, token }).get('/runs'),
      () => api({ url }).get('/session', { cookie, 'sec-fetch-site': 'same-origin' }),
      () => api({ url, token }).get('/not/a/route'),
      () => api({ url, token }).post('/runs', {}),
      () => api({ url }).post('/session', { token }),
    ]
    const burst = await Promise.all(
      Array.from({ length: PER_SECOND * 4 }, async (_, nth) => ways[nth % ways.length]?.()),
    )

    const limited = burst.map((response, nth) => [nth % ways.length, response?.status] as const)
    for (const way of ways.keys()) expect(limited).toContainEqual([way, 429])
  })

  test('without a good token are limited too, and do not hold up those with one from the same address', async () => {
    const good = api({ url: open.url, token: await newToken('good', 'viewer') })
    expect((await good.get('/runs')).status).toBe(200)
    const flood = new AbortController()
    onTestFinished(() => flood.abort())
    const [byHeader, byCookie] = [new Set<number>(), new Set<number>()]
    const guess = async (nth: number): Promise<void> => {
      const how: Record<string, string> =
        nth % 2 === 0
          ? { authorization: `Bearer rl_${nth}` }
          : { cookie: `__Host-runlane=${nth}`, 'sec-fetch-site': 'same-origin' }
      const agent = new Agent({ keepAlive: true, maxSockets: 1 })
      const statuses = nth % 2 === 0 ? byHeader : byCookie
      while (!flood.signal.aborted) statuses.add(await statusOf('/session', how, agent))
      agent.destroy()
    }
    const guessing = Array.from({ length: 64 }, (_, nth) => guess(nth))

    await eventually(() => byHeader.has(429) && byCookie.has(429), { timeoutMs: 20_000 })
    const until = performance.now() + 3_000
    // Longer than what was found counts without another look.
    while (performance.now() < until) {
      expect((await good.get('/runs')).status).toBe(200)
      expect((await admin.get('/runs')).status).toBe(200)
      await pause(20)
    }

    flood.abort()
    await Promise.all(guessing)
    for (const statuses of [byHeader, byCookie]) expect(statuses).toEqual(new Set([401, 429]))
  })
})

const statusOf = (path: string, headers: Record<string, string>, agent: Agent): Promise<number> =>
  new Promise((resolve, reject) => {
    send(open.url + path, { headers, agent }, (incoming) => {
      incoming.resume().on('end', () => resolve(incoming.statusCode ?? 0))
    })
      .on('error', reject)
      .end()
  })

describe('open connections of one caller', () => {
  /** The waits share no socket; each is one that a caller holds. */
  const hold = (path: string, token: string) => {
    const outgoing = send(open.url + path, {
      headers: { authorization: `Bearer ${token}` },
      agent: false,
    })
    const answered = new Promise<{ status: number; body: string }>((resolve, reject) => {
      outgoing.on('error', reject)
      outgoing.on('response', (incoming) => {
        void text(incoming).then((body) => resolve({ status: incoming.statusCode ?? 0, body }))
      })
    })
    // Whoever lets go of it does not want to know.
    answered.catch(() => {})
    outgoing.end()
    return { answered, letGo: () => outgoing.destroy() }
  }

  test('are bounded; another caller may open one; one that is closed makes room', async () => {
    const token = await newToken('greedy', 'viewer')
    const other = await newToken('modest', 'viewer')
    const { run_id } = await admin.createRun(scripted([{ think: 600_000 }]))
    const wait = `/runs/${run_id}?wait=5m`
    const asked = Array.from({ length: CONNECTIONS + 1 }, () => hold(wait, token))
    onTestFinished(() => asked.forEach(({ letGo }) => letGo()))
    const brief = async (bearer: string) =>
      JSON.parse((await hold(`/runs/${run_id}?wait=50ms`, bearer).answered).body) as {
        code?: string
      }

    // The one too many is answered at once, and only that one.
    const first = await Promise.race(asked.map(async (one) => ({ one, ...(await one.answered) })))
    expect([first.status, JSON.parse(first.body).code]).toEqual([429, 'too_many_connections'])
    const held = asked.filter((one) => one !== first.one)

    const refused = await api({ url: open.url, token }).get('/conversations/c/agent-events')
    expectProblem(refused, { status: 429, code: 'too_many_connections' })
    expect((await brief(other)).code).toBeUndefined()
    expect((await api({ url: open.url, token }).get(`/runs/${run_id}`)).status).toBe(200)
    held[0]?.letGo()
    await eventually(async () => (await brief(token)).code === undefined)
    await admin.cancel(run_id)
    // All the others were held all the time.
    const [, ...rest] = held
    for (const { status } of await Promise.all(rest.map(({ answered }) => answered)))
      expect(status).toBe(200)
  })

  test('do not grow by asking for the headers of streams alone', async () => {
    const token = await newToken('header', 'operator')
    const agent = new Agent({ keepAlive: true, maxSockets: 16 })
    onTestFinished(() => agent.destroy())
    const head = (): Promise<number> =>
      new Promise((resolve, reject) => {
        send(
          `${open.url}/agent-events`,
          { method: 'HEAD', headers: { authorization: `Bearer ${token}` }, agent },
          (incoming) => incoming.resume().on('end', () => resolve(incoming.statusCode ?? 0)),
        )
          .on('error', reject)
          .end()
      })
    const statuses = await Promise.all(Array.from({ length: CONNECTIONS + 1 }, head))
    expect(new Set(statuses)).toEqual(new Set([200]))

    const { run_id } = await admin.createRun(scripted([]))
    await admin.waitForRun(run_id)
    const stream = await api({ url: open.url, token }).get(`/runs/${run_id}/agent-events`)
    expect(stream.status).toBe(200)
  })
})
