import { createHash } from 'node:crypto'
import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { type ApiResponse, api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { bySecretKey, inSeconds, SECRET } from '../support/jwt.ts'
import { type Service, startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

/** Within so long a revocation is effective everywhere. */
const REVOKED_MS = 5_000

const databaseUrl = await freshDatabase()
const env = { RUNLANE_JWT_SECRET: SECRET }
const [service, replica] = await Promise.all([
  startService({ databaseUrl, env: { ...env, RUNLANE_NODE_ID: 'one' } }),
  startService({ databaseUrl, env: { ...env, RUNLANE_NODE_ID: 'two' } }),
])
afterAll(() => Promise.all([service.kill(), replica.kill()]))
const sql = postgres(databaseUrl, { max: 1 })
afterAll(() => sql.end())
const admin = api(service)

const newToken = async (name: string, role: string) =>
  (await admin.post('/api/v1/admin/tokens', { name, role })).body as { id: string; token: string }

type Site = string | undefined
const ask = (
  { url }: Service,
  method: string,
  path: string,
  { cookie, site, token, body }: { cookie?: string; site?: Site; token?: string; body?: unknown },
): Promise<ApiResponse> =>
  api({ url }).request(method, path, {
    ...(body === undefined ? {} : { body }),
    headers: {
      ...(cookie === undefined ? {} : { cookie }),
      ...(site === undefined ? {} : { 'sec-fetch-site': site }),
      ...(token === undefined ? {} : { authorization: `Bearer ${token}` }),
    },
  })
const logIn = (token: string, site: Site = 'same-origin') =>
  ask(service, 'POST', '/session', { site, body: { token } })
/** What a browser would send from now on. */
const cookieOf = ({ headers }: ApiResponse): string =>
  headers.getSetCookie()[0]?.split(';')[0] ?? ''
const whoIs = (where: Service, cookie: string, site: Site = 'same-origin') =>
  ask(where, 'GET', '/session', { cookie, site })

const worker = await newToken('worker', 'service')
const cookie = cookieOf(await logIn(worker.token))

test('a log-in answers who it is, and sets a cookie that scripts and other sites do not get', async () => {
  const response = await logIn(worker.token)

  expect({ status: response.status, body: response.body }).toEqual({
    status: 201,
    body: { name: 'token:worker', role: 'service' },
  })
  const [set = '', ...more] = response.headers.getSetCookie()
  expect(more).toEqual([])
  const [pair = '', ...attributes] = set.split(/; */)
  expect(pair).toMatch(/^__Host-runlane=[\w-]{32,}$/)
  expect(attributes.toSorted()).toEqual(
    ['HttpOnly', 'Max-Age=43200', 'Path=/', 'SameSite=Strict', 'Secure'].toSorted(),
  )
  expect(response.headers.get('cache-control')).toBe('no-store')
})

test('the database holds hashes of sessions and tokens, never themselves', async () => {
  const [, id = ''] = cookie.split('=')
  const rows = await sql`select * from runlane.sessions`
  const text = JSON.stringify(rows)
  expect(text).not.toContain(id)
  expect(text).not.toContain(worker.token)
  const hashOf = (secret: string) => createHash('sha256').update(secret).digest('hex')
  expect(rows).toContainEqual(
    expect.objectContaining({ hash: hashOf(id), token_hash: hashOf(worker.token) }),
  )
})

test('a session is that of its token on every replica, for posting and streams too', async () => {
  for (const where of [service, replica]) {
    expect((await whoIs(where, cookie)).body).toEqual({ name: 'token:worker', role: 'service' })
    const run = await ask(where, 'POST', '/runs', {
      cookie,
      site: 'same-origin',
      body: scripted([]),
    })
    expect(run.body.created_by).toBe('token:worker')
    await admin.waitForRun(run.body.run_id)
    const path = `/runs/${run.body.run_id}/agent-events`
    const stream = await ask(where, 'GET', path, { cookie, site: 'same-origin' })
    expect(stream.headers.get('content-type')).toMatch(/^text\/event-stream/)
    expect(stream.body).toContain('run_created')
    expectProblem(await ask(where, 'GET', '/api/v1/admin/audit', { cookie, site: 'same-origin' }), {
      status: 403,
      code: 'forbidden',
    })
  }
})

const { run_id } = await admin.createRun(scripted([]))

describe('where a request comes from', () => {
  const reading: [Site, number][] = [
    ['same-origin', 200],
    ['none', 200],
    ['same-site', 403],
    ['cross-site', 403],
    ['same-origin, cross-site', 403],
    [undefined, 200],
  ]
  const paths = ['/session', '/runs', `/runs/${run_id}/agent-events`]
  test.each(reading)('reading from %s: %i', async (site, status) => {
    for (const path of paths)
      expect((await ask(service, 'GET', path, { cookie, site })).status).toBe(status)
  })

  const changing: [Site, number][] = [
    ['same-origin', 202],
    ['none', 403],
    ['same-site', 403],
    ['cross-site', 403],
    ['', 403],
    [undefined, 403],
  ]
  test.each(changing)('changing something from %s: %i', async (site, status) => {
    const count = async () =>
      (await sql`select count(*)::int as n from runlane.agent_runs`)[0]?.['n']
    const before = await count()
    const response = await ask(service, 'POST', '/runs', { cookie, site, body: scripted([]) })
    expect(response.status).toBe(status)
    expect(await count()).toBe(before + (status === 202 ? 1 : 0))
  })

  test('a bearer token counts from anywhere, since no browser sends it by itself', async () => {
    for (const site of ['cross-site', 'same-site', 'none', undefined]) {
      const response = await ask(service, 'POST', '/runs', {
        token: worker.token,
        site,
        body: scripted([]),
      })
      expect(response.status).toBe(202)
    }
  })

  test('a wrong bearer token is not made good by a cookie', async () => {
    const response = await ask(service, 'GET', '/runs', {
      cookie,
      site: 'same-origin',
      token: 'no',
    })
    expectProblem(response, { status: 401, code: 'unauthorized' })
  })
})

describe('log-ins', () => {
  test.each<[Site, number]>([
    ['same-origin', 201],
    [undefined, 201],
    ['none', 403],
    ['same-site', 403],
    ['cross-site', 403],
  ])('from %s: %i', async (site, status) => {
    const response = await logIn(worker.token, site)
    expect(response.status).toBe(status)
    expect(response.headers.getSetCookie()).toHaveLength(status === 201 ? 1 : 0)
  })

  test.each<[string, unknown, number]>([
    ['an unknown token', 'rl_nobody', 401],
    ['a JWT that nobody signed', 'a.b.c', 401],
    ['no token', undefined, 422],
    ['an empty one', '', 422],
    ['a number', 7, 422],
  ])('with %s open none', async (_name, token, status) => {
    const before = await sql`select hash from runlane.sessions`
    const response = await logIn(token as string)
    expect(response.status).toBe(status)
    expect(response.headers.getSetCookie()).toEqual([])
    expect(await sql`select hash from runlane.sessions`).toEqual(before)
  })
})

test('a log-out ends the session everywhere, and no other', async () => {
  const leaving = cookieOf(await logIn(worker.token))
  for (const where of [service, replica]) expect((await whoIs(where, leaving)).status).toBe(200)
  const foreign = await ask(service, 'DELETE', '/session', { cookie: leaving, site: 'cross-site' })
  expectProblem(foreign, { status: 403, code: 'forbidden' })
  expect((await whoIs(service, leaving)).status).toBe(200)

  const left = await ask(service, 'DELETE', '/session', { cookie: leaving, site: 'same-origin' })

  expect(left.status).toBe(204)
  const [set = ''] = left.headers.getSetCookie()
  expect(set).toMatch(/^__Host-runlane=;.*Max-Age=0/)
  expect(set).toMatch(/; Path=\/.*; Secure|; Secure.*; Path=\//)
  expectProblem(await whoIs(service, leaving), { status: 401, code: 'unauthorized' })
  await eventually(async () => (await whoIs(replica, leaving)).status === 401, {
    timeoutMs: REVOKED_MS,
  })
  expect((await whoIs(service, cookie)).status).toBe(200)
  expect((await ask(service, 'DELETE', '/session', {})).status).toBe(204)
})

test('a session ends by itself, and the next log-in forgets it', async () => {
  const old = cookieOf(await logIn(worker.token))
  expect((await whoIs(service, old)).status).toBe(200)
  const [, id = ''] = old.split('=')
  const hash = createHash('sha256').update(id).digest('hex')
  await sql`update runlane.sessions set expires_at = now() - interval '1 second' where hash = ${hash}`

  await eventually(async () => (await whoIs(service, old)).status === 401)

  await logIn(worker.token)
  expect(await sql`select 1 from runlane.sessions where hash = ${hash}`).toEqual([])
})

test('a session for a JWT ends with it', async () => {
  const exp = inSeconds(4)
  const response = await logIn(await bySecretKey({ sub: 'ana', exp }))
  expect(response.body).toEqual({ name: 'user:ana', role: 'operator' })
  const [set = ''] = response.headers.getSetCookie()
  expect(Number(/Max-Age=(\d+)/.exec(set)?.[1])).toBeLessThanOrEqual(4)
  const brief = cookieOf(response)
  // Asked for shortly before its end: what was found counts for a while, but not beyond it.
  await eventually(() => Date.now() > exp * 1000 - 300)
  expect((await whoIs(service, brief)).status).toBe(200)

  const endedAt = await eventually(async () => {
    const { status } = await whoIs(service, brief)
    return status === 401 && Date.now()
  })

  expect(endedAt - exp * 1000).toBeGreaterThan(-100)
  expect(endedAt - exp * 1000).toBeLessThan(700)
})

test('a session for a JWT ends with the key that signed it', async () => {
  const opened = cookieOf(await logIn(await bySecretKey({ role: 'ROLE_ADMIN' })))
  expect((await whoIs(replica, opened)).body).toEqual({ name: 'user:ana', role: 'admin' })
  const rotated = await startService({
    databaseUrl,
    env: { RUNLANE_JWT_SECRET: `${SECRET}, and another one` },
  })
  try {
    expect((await whoIs(rotated, opened)).status).toBe(401)
    const evil = { cookie: opened, site: 'same-origin', body: { name: 'evil', role: 'admin' } }
    expect((await ask(rotated, 'POST', '/api/v1/admin/tokens', evil)).status).toBe(401)
  } finally {
    await rotated.kill()
  }
})

test('of a session for a JWT neither part counts alone, nor with the JWT of somebody else', async () => {
  const opened = cookieOf(await logIn(await bySecretKey({ role: 'ROLE_VIEWER' })))
  const [id = ''] = opened.split('.')
  const other = await bySecretKey({ sub: 'eve', role: 'ROLE_ADMIN' })
  const name = id.split('=')[0] ?? ''
  for (const forged of [id, `${id}.${other}`, `${name}=x.${other}`])
    expect((await whoIs(service, forged)).status).toBe(401)
  expect((await whoIs(service, opened)).status).toBe(200)
  const long = await bySecretKey({ note: 'x'.repeat(4_000) })
  expectProblem(await logIn(long), { status: 422, code: 'validation_error', paths: ['token'] })
})

test('a JWT that has just expired opens no session, although clocks may differ for its bearer', async () => {
  const token = await bySecretKey({ exp: inSeconds(-5) })
  expect((await ask(service, 'GET', '/session', { token })).status).toBe(200)
  expectProblem(await logIn(token), { status: 401, code: 'unauthorized' })
})

test('revoking a token ends its use, its sessions and its streams on every replica within five seconds', async () => {
  const { id, token } = await newToken('short', 'operator')
  const session = cookieOf(await logIn(token))
  const uses = [service, replica].flatMap((where) => [
    () => ask(where, 'GET', '/session', { token }),
    () => whoIs(where, session),
  ])
  for (const use of uses) expect((await use()).status).toBe(200)
  const headers = [
    { authorization: `Bearer ${token}` },
    { cookie: session, 'sec-fetch-site': 'same-origin' },
  ]
  const streams = await Promise.all(
    [service, replica].flatMap(({ url }) =>
      headers.map(async (given) => fetch(`${url}/agent-events`, { headers: given })),
    ),
  )
  expect(streams.map(({ status }) => status)).toEqual([200, 200, 200, 200])
  const ended = streams.map(async (stream) => stream.text().then(() => performance.now()))

  const revokedAt = performance.now()
  expect((await admin.request('DELETE', `/api/v1/admin/tokens/${id}`)).status).toBe(204)

  for (const use of uses.slice(0, 2)) expect((await use()).status).toBe(401)
  await eventually(
    async () => {
      const statuses = await Promise.all(uses.map(async (use) => (await use()).status))
      return statuses.every((status) => status === 401)
    },
    { timeoutMs: REVOKED_MS },
  )
  for (const endedAt of await Promise.all(ended))
    expect(endedAt - revokedAt).toBeLessThan(REVOKED_MS)
  expect(await sql`select 1 from runlane.sessions where name = 'token:short'`).toEqual([])
  expectProblem(await logIn(token), { status: 401, code: 'unauthorized' })
})

test('a session of a configured token ends when another one is configured', async () => {
  const session = cookieOf(await logIn(service.token))
  expect((await whoIs(replica, session)).body).toEqual({ name: 'token:admin', role: 'admin' })
  const other = await startService({
    databaseUrl,
    env: { RUNLANE_ADMIN_TOKEN: 'another-admin-token-0123', RUNLANE_NODE_ID: 'three' },
  })
  try {
    expectProblem(await whoIs(other, session), { status: 401, code: 'unauthorized' })
  } finally {
    await other.kill()
  }
})
