import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem } from './setup.ts'

const databaseUrl = await freshDatabase()
const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
const service = await startService({ databaseUrl })
afterAll(async () => {
  await service.kill()
  await sql.end()
})
const { get, post, request } = api(service)
const TOKENS = '/api/v1/admin/tokens'

const keyed = (key: string) => ({ 'idempotency-key': key })
const auditsOf = async (target: string) =>
  (
    await sql`select outcome, code from runlane.audit_events where target = ${target} order by id`
  ).map(({ outcome, code }) => code ?? outcome)
const keysIn = async () => (await sql`select from runlane.request_keys`).length

describe('a token', () => {
  const make = (name: string, key: string, role = 'viewer') =>
    post(TOKENS, { name, role }, keyed(key))

  test('asked for again under its key is the same one, without its secret, made and audited once', async () => {
    const first = await make('once', 't1')
    const again = await make('once', 't1')

    expect(first).toMatchObject({ status: 201, body: { name: 'once', token: expect.any(String) } })
    const { token, ...row } = first.body
    expect({ status: again.status, body: again.body }).toEqual({ status: 200, body: row })
    expect(again.headers.get('idempotent-replayed')).toBe('true')
    expect(await auditsOf('once')).toEqual(['applied'])
    expect((await api({ url: service.url, token }).get('/session')).status).toBe(200)

    expectProblem(await make('once', 't1', 'admin'), { status: 409, code: 'idempotency_conflict' })
    expectProblem(await make('once', 't2'), { status: 409, code: 'token_exists' })
    expectProblem(await post(TOKENS, { name: 'once', role: 'viewer' }), {
      ...{ status: 409, code: 'token_exists' },
    })
  })

  test('asked for by many at once under one key is made once, and one of them has the secret', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => make('rush', 'rush')))
    const statuses = answers.map(({ status }) => status).toSorted((a, b) => a - b)
    expect(statuses).toEqual([200, 200, 200, 200, 200, 200, 200, 201])
    expect(new Set(answers.map(({ body }) => body.id)).size).toBe(1)
    expect(answers.filter(({ body }) => 'token' in body)).toHaveLength(1)
    expect(await auditsOf('rush')).toEqual(['applied'])
  })

  test('that was revoked since is not made anew under its key', async () => {
    const { body } = await make('gone', 't3')
    await request('DELETE', `${TOKENS}/${body.id}`)
    const again = await make('gone', 't3')
    expect(again).toMatchObject({ status: 200, body: { revoked_at: expect.any(String) } })
  })

  test('that was refused leaves its key free', async () => {
    const before = await keysIn()
    await make('taken', 't4')
    expectProblem(await make('taken', 't5'), { status: 409, code: 'token_exists' })
    expectProblem(await make('admin', 't5'), { status: 409, code: 'token_exists' })
    expect(await keysIn()).toBe(before + 1)
    expect((await make('free', 't5')).status).toBe(201)
  })

  test('is made once for each caller who has the key', async () => {
    const { token } = (await make('other-admin', 't6', 'admin')).body
    const other = api({ url: service.url, token })
    const made = await other.post(TOKENS, { name: 'theirs', role: 'viewer' }, keyed('t1'))
    expect(made).toMatchObject({ status: 201, body: { name: 'theirs' } })
  })
})

describe('an agent', () => {
  const declare = (name: string, key: string, more: object = {}) =>
    post('/agents', { name, models: ['openai:gpt-5.2'], ...more }, keyed(key))

  test('declared again under its key is not declared again, whoever has replaced it since', async () => {
    expect((await declare('steady', 'a1', { instructions: 'one' })).status).toBe(201)
    expect((await declare('steady', 'a2', { instructions: 'two' })).status).toBe(200)

    const again = await declare('steady', 'a1', { instructions: 'one' })

    expect(again).toMatchObject({ status: 200, body: { definition: { instructions: 'two' } } })
    expect(again.headers.get('idempotent-replayed')).toBe('true')
    expect(again.headers.get('location')).toBe('/agents/steady')
    expect((await get('/agents/steady')).body.definition.instructions).toBe('two')
    expect(await auditsOf('steady')).toEqual(['applied', 'applied'])
    const other = await declare('steady', 'a1', { instructions: 'three' })
    expectProblem(other, { status: 409, code: 'idempotency_conflict' })
  })

  test('declared by many at once under one key is declared once', async () => {
    const answers = await Promise.all(Array.from({ length: 8 }, () => declare('rushed', 'rush')))
    expect(answers.filter(({ status }) => status === 201)).toHaveLength(1)
    expect(answers.filter(({ status }) => status === 200)).toHaveLength(7)
    expect(await auditsOf('rushed')).toEqual(['applied'])
  })

  test('that was deleted since is not declared anew under its key', async () => {
    await declare('brief', 'a3')
    await request('DELETE', '/agents/brief')
    expectProblem(await declare('brief', 'a3'), { status: 404, code: 'not_found' })
    expect((await declare('brief', 'a4')).status).toBe(201)
  })

  test('that was refused leaves its key free', async () => {
    expectProblem(await declare('scripted', 'a5'), { status: 409, code: 'agent_exists' })
    expect((await declare('allowed', 'a5')).status).toBe(201)
  })
})

test('keys are forgotten after thirty days, some with each new one', async () => {
  await post(TOKENS, { name: 'old', role: 'viewer' }, keyed('old'))
  await sql`update runlane.request_keys set created_at = now() - interval '31 days'`
  await post(TOKENS, { name: 'new', role: 'viewer' }, keyed('new'))
  expect(await keysIn()).toBe(1)
  const again = await post(TOKENS, { name: 'old', role: 'viewer' }, keyed('old'))
  expectProblem(again, { status: 409, code: 'token_exists' })
})

test.each([
  [TOKENS, { name: 'a', role: 'viewer' }],
  ['/agents', { name: 'a', models: ['openai:gpt-5.2'] }],
])('%s takes a key of 1 to 255 characters only', async (path, body) => {
  for (const key of ['', 'x'.repeat(256)]) {
    const refused = await post(path, body, keyed(key))
    expectProblem(refused, { status: 422, code: 'validation_error', paths: ['Idempotency-Key'] })
  }
})
