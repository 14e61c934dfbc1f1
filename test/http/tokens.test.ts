import { createHash } from 'node:crypto'
import { readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import postgres from 'postgres'
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const TOKENS = '/api/v1/admin/tokens'
const databaseUrl = await freshDatabase()
const service = await startService({ databaseUrl })
afterAll(() => service.kill())
const sql = postgres(databaseUrl, { max: 1 })
afterAll(() => sql.end())
const admin = api(service)
const bearer = (token: string) => api({ url: service.url, token })

const auditRows = (action: string, target: string) =>
  sql`select actor, role, outcome, code from runlane.audit_events
    where action = ${action} and target = ${target} order by id`
const byAdmin = { actor: 'token:admin', role: 'admin' }

describe('API tokens', () => {
  test('are shown once, and work at once', async () => {
    const created = await admin.post(TOKENS, { name: 'backend-1', role: 'service' })

    expect(created.status).toBe(201)
    const { id, token } = created.body
    expect(token).toMatch(/^rl_[\w-]{32}$/)
    expect(created.body).toEqual({
      id: expect.stringMatching(/^tok_/),
      name: 'backend-1',
      role: 'service',
      token,
      created_at: expect.any(String),
      revoked_at: null,
    })
    const run = await bearer(token).createRun(scripted([]))
    expect(run['created_by']).toBe('token:backend-1')
    const listed = await admin.get(TOKENS)
    expect(JSON.stringify(listed.body)).not.toContain(token)
    expect(listed.body.tokens).toContainEqual({
      id,
      name: 'backend-1',
      role: 'service',
      created_at: created.body.created_at,
      revoked_at: null,
    })
    expect(await auditRows('token.create', 'backend-1')).toEqual([
      { ...byAdmin, outcome: 'applied', code: null },
    ])
  })

  test('are in the database as hashes alone, and in no log', async () => {
    const { token } = (await admin.post(TOKENS, { name: 'hidden', role: 'viewer' })).body
    await bearer(token).post('/runs', { nonsense: true })
    const tables = await sql<{ name: string }[]>`
      select table_name as name from information_schema.tables where table_schema = 'runlane'`
    for (const { name } of tables)
      expect(JSON.stringify(await sql`select * from ${sql(`runlane.${name}`)}`)).not.toContain(
        token,
      )
    const [row] = await sql`select hash from runlane.api_tokens where name = 'hidden'`
    expect(row?.['hash']).toBe(createHash('sha256').update(token).digest('hex'))
    expect(service.stdout() + service.stderr()).not.toContain(token)
  })

  test('in use have names of their own, also when many ask at once', async () => {
    const asked = await Promise.all(
      Array.from({ length: 10 }, () => admin.post(TOKENS, { name: 'one', role: 'viewer' })),
    )

    const refused = asked.filter(({ status }) => status !== 201)
    expect(refused).toHaveLength(9)
    for (const response of refused) {
      expectProblem(response, { status: 409, code: 'token_exists' })
      expect(response.body).not.toHaveProperty('token')
    }
    const rows = await auditRows('token.create', 'one')
    const codes = rows.map(({ outcome, code }) => `${outcome} ${code}`).toSorted()
    expect(codes).toEqual([
      'applied null',
      ...Array.from({ length: 9 }, () => 'refused token_exists'),
    ])
  })

  test('none may be called admin: that is the configured one', async () => {
    const response = await admin.post(TOKENS, { name: 'admin', role: 'viewer' })
    expectProblem(response, { status: 409, code: 'token_exists' })
  })

  test.each([
    ['', 'viewer', 'name'],
    ['with space', 'viewer', 'name'],
    ['line\nbreak', 'viewer', 'name'],
    ['.hidden', 'viewer', 'name'],
    ['ünïcode', 'viewer', 'name'],
    ['x'.repeat(101), 'viewer', 'name'],
    ['fine', 'root', 'role'],
    ['fine', 'none', 'role'],
  ])('%j with the role %s does not fit', async (name, role, path) => {
    const response = await admin.post(TOKENS, { name, role })
    expectProblem(response, { status: 422, code: 'validation_error', paths: [path] })
  })

  test('revoked ones are refused at once, for good', async () => {
    const { id, token } = (await admin.post(TOKENS, { name: 'leaving', role: 'viewer' })).body
    expect((await bearer(token).get('/runs')).status).toBe(200)

    const revoked = await admin.request('DELETE', `${TOKENS}/${id}`)

    expect({ status: revoked.status, body: revoked.body }).toEqual({ status: 204, body: null })
    expectProblem(await bearer(token).get('/runs'), { status: 401, code: 'unauthorized' })
    const again = await admin.request('DELETE', `${TOKENS}/${id}`)
    expectProblem(again, { status: 404, code: 'not_found' })
    const listed = (await admin.get(TOKENS)).body.tokens as {
      id: string
      revoked_at: string | null
    }[]
    expect(listed.find((one) => one.id === id)?.revoked_at).toMatch(/^\d{4}-/)
    const next = await admin.post(TOKENS, { name: 'leaving', role: 'viewer', rotate: true })
    expect(next.status).toBe(201)
    expectProblem(await bearer(token).get('/runs'), { status: 401, code: 'unauthorized' })
    expect(await auditRows('token.revoke', id)).toEqual([
      { ...byAdmin, outcome: 'applied', code: null },
      { ...byAdmin, outcome: 'refused', code: 'not_found' },
    ])
  })

  test('an admin by token may revoke itself, and is out', async () => {
    const { id, token } = (await admin.post(TOKENS, { name: 'brief', role: 'admin' })).body
    expect((await bearer(token).request('DELETE', `${TOKENS}/${id}`)).status).toBe(204)
    expectProblem(await bearer(token).get('/runs'), { status: 401, code: 'unauthorized' })
  })
})

describe('the name of a token', () => {
  const create = async (name: string, more: { role?: string; rotate?: boolean } = {}) =>
    admin.post(TOKENS, { name, role: 'service', ...more })
  const inUse = async (name: string) =>
    ((await admin.get(TOKENS)).body.tokens as { name: string; revoked_at: null }[]).filter(
      (one) => one.name === name && one.revoked_at === null,
    )

  test('that was revoked is taken, since its runs are still there', async () => {
    const { id, token } = (await create('team-a')).body
    await bearer(token).createRun(scripted([]))
    await admin.request('DELETE', `${TOKENS}/${id}`)

    expectProblem(await create('team-a'), { status: 409, code: 'name_taken' })

    expect((await auditRows('token.create', 'team-a')).at(-1)).toEqual({
      ...byAdmin,
      outcome: 'refused',
      code: 'name_taken',
    })
    expect(await inUse('team-a')).toEqual([])
  })

  test('goes to another token by rotation, with its runs; the one in use is revoked', async () => {
    const first = (await create('team-b')).body
    const run = await bearer(first.token).createRun(scripted([{ think: 60_000 }]))
    const session = await fetch(`${service.url}/session`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ token: first.token }),
    })
    const [cookie = ''] = session.headers.getSetCookie()[0]?.split(';') ?? []

    const second = await create('team-b', { rotate: true })

    expect(second.status).toBe(201)
    expectProblem(await bearer(first.token).get('/runs'), { status: 401, code: 'unauthorized' })
    const byCookie = { cookie, 'sec-fetch-site': 'same-origin' }
    expect((await fetch(`${service.url}/session`, { headers: byCookie })).status).toBe(401)
    expect((await bearer(second.body.token).cancel(run.run_id)).status).toBe(202)
    const [row] = await sql`select before, after from runlane.audit_events
      where action = 'token.create' and target = 'team-b' order by id desc limit 1`
    const { id } = second.body
    expect(row).toEqual({
      before: { id: first.id, name: 'team-b', role: 'service', in_use: true },
      after: { id, name: 'team-b', role: 'service' },
    })
  })

  test('goes to one of many that ask at once, and the others are revoked or refused', async () => {
    await create('team-c')
    const asked = await Promise.all(
      Array.from({ length: 10 }, () => create('team-c', { rotate: true })),
    )
    const working = await Promise.all(
      asked.map(async ({ body }) => (await bearer(body.token).get('/runs')).status === 200),
    )
    expect(working.filter(Boolean)).toHaveLength(1)
    expect(await inUse('team-c')).toHaveLength(1)
  })

  test('that nobody has or had cannot be rotated: it may be misspelt', async () => {
    const response = await create('team-x', { rotate: true })
    expectProblem(response, { status: 409, code: 'nothing_to_rotate' })
    expect(response.body).not.toHaveProperty('token')
    expectProblem(await create('admin', { rotate: true }), { status: 409, code: 'token_exists' })
  })
})

test('the token that the service made for itself can be revoked, and the next start makes another', async () => {
  const first = await startService({ env: { RUNLANE_ADMIN_TOKEN: '' } })
  onTestFinished(() => void first.kill())
  const path = join(first.dataDir, 'admin-token')
  const leaked = readFileSync(path, 'utf8').trim()
  const client = api({ url: first.url, token: leaked })
  const [own] = (await client.get(TOKENS)).body.tokens
  expect(own).toMatchObject({ name: 'admin', role: 'admin' })
  expect((await client.request('DELETE', `${TOKENS}/${own.id}`)).status).toBe(204)
  expectProblem(await client.get('/runs'), { status: 401, code: 'unauthorized' })

  const second = await first.restart()
  onTestFinished(() => void second.kill())

  const fresh = readFileSync(path, 'utf8').trim()
  expect(fresh).not.toBe(leaked)
  expect((statSync(path).mode & 0o777).toString(8)).toBe('600')
  expect(second.stdout()).toContain(fresh)
  expect((await api({ url: second.url, token: fresh }).get('/runs')).status).toBe(200)
  const old = await api({ url: second.url, token: leaked }).get('/runs')
  expectProblem(old, { status: 401, code: 'unauthorized' })
})
