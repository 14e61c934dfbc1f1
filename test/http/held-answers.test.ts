import { afterAll, expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { bySecretKey, inSeconds, SECRET } from '../support/jwt.ts'
import { startService } from '../support/service.ts'
import { scripted } from './setup.ts'

/** Within so long a revocation is effective everywhere. */
const REVOKED_MS = 5_000
/** How long a JWT counts beyond its end. */
const TOLERANCE_S = 30

const databaseUrl = await freshDatabase()
const env = { RUNLANE_JWT_SECRET: SECRET }
const nodes = await Promise.all([
  startService({ databaseUrl, env: { ...env, RUNLANE_NODE_ID: 'one' } }),
  startService({ databaseUrl, env: { ...env, RUNLANE_NODE_ID: 'two' } }),
])
afterAll(() => Promise.all(nodes.map((node) => node.kill())))
const [service] = nodes
const admin = api(service)
const TOKENS = '/api/v1/admin/tokens'

type Headers = Record<string, string>
const bearer = (token: string): Headers => ({ authorization: `Bearer ${token}` })
const newToken = async (name: string) =>
  (await admin.post(TOKENS, { name, role: 'operator' })).body as { id: string; token: string }
/** What a browser sends that has logged in with a token. */
const sessionOf = async (token: string): Promise<Headers> => {
  const response = await fetch(`${service.url}/session`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ token }),
  })
  const [cookie = ''] = response.headers.getSetCookie()[0]?.split(';') ?? []
  return { cookie, 'sec-fetch-site': 'same-origin' }
}
const longRun = async (): Promise<string> => {
  const run = await admin.createRun(scripted([{ tool: 'lost', hang: true }]))
  await admin.waitForRun(run.run_id, { until: ({ status }) => status === 'waiting_on_tool' })
  return run.run_id
}

/** An answer as it came, and when. */
const held = async (url: string, headers: Headers, method = 'GET') => {
  const response = await fetch(url, { method, headers })
  return { status: response.status, body: await response.json(), at: performance.now() }
}
const LET_GO = { status: 401, body: { detail: expect.stringContaining('during the wait') } }
/** Requests that were made before are with the service by now. */
const arrived = async (headers: Headers) => {
  for (let times = 0; times < 5; times += 1)
    for (const { url } of nodes)
      expect((await fetch(`${url}/session`, { headers })).status).toBe(200)
}

test('who waits for a run is let go when the token is revoked, on every replica, also with a session', async () => {
  const run_id = await longRun()
  const [leaving, staying] = [await newToken('leaving'), await newToken('staying')]
  const ways = [bearer(leaving.token), await sessionOf(leaving.token)]
  const waits = nodes.flatMap(({ url }) =>
    ways.map((headers) => held(`${url}/runs/${run_id}?wait=5m`, headers)),
  )
  const other = held(`${service.url}/runs/${run_id}?wait=6s`, bearer(staying.token))
  await arrived(bearer(leaving.token))

  const revokedAt = performance.now()
  await admin.request('DELETE', `${TOKENS}/${leaving.id}`)

  for (const answer of await Promise.all(waits)) {
    expect(answer).toMatchObject(LET_GO)
    expect(answer.at - revokedAt).toBeLessThan(REVOKED_MS)
  }
  expect(await other).toMatchObject({ status: 200, body: { run_id } })
})

test('who waits, or reads a stream, with a JWT is let go when it ends', async () => {
  const run_id = await longRun()
  const exp = inSeconds(4 - TOLERANCE_S)
  const headers = bearer(await bySecretKey({ exp }))
  const wait = held(`${service.url}/runs/${run_id}?wait=5m`, headers)
  const stream = await fetch(`${service.url}/runs/${run_id}/agent-events`, { headers })
  expect(stream.status).toBe(200)

  await stream.text()
  expect(await wait).toMatchObject(LET_GO)

  const late = Date.now() - (exp + TOLERANCE_S) * 1000
  expect(late).toBeGreaterThan(-1_000)
  expect(late).toBeLessThan(REVOKED_MS)
})

test('who waits for what a command leads to is told that it was given, and no more', async () => {
  const run_id = await longRun()
  const { id, token } = await newToken('commanding')
  const wait = held(`${service.url}/runs/${run_id}/cancel?wait=5m`, bearer(token), 'POST')
  await admin.waitForRun(run_id, { until: ({ status }) => status === 'cancel_requested' })

  await admin.request('DELETE', `${TOKENS}/${id}`)

  expect(await wait).toMatchObject({
    status: 202,
    body: { command: { kind: 'cancel' }, run: null },
  })
})
