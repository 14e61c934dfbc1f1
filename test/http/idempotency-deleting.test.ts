import { randomUUID } from 'node:crypto'
import postgres from 'postgres'
import { afterAll, describe, expect, test } from 'vitest'
import { ENDPOINTS } from '../../src/http/contract/all.ts'
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
const { post, request } = api(service)

const remove = (path: string, key?: string, body?: object) =>
  request('DELETE', path, { body, headers: key === undefined ? {} : { 'idempotency-key': key } })
const trailOf = async (path: string) =>
  (
    await sql`select outcome, code, reason from runlane.audit_events
      where action in ('token.revoke', 'agent.delete') and target = ${path.split('/').at(-1) ?? ''} order by id`
  ).map(({ outcome, code, reason }) => [code ?? outcome, reason])

/** What there is to delete, each time another one. */
const makers: Record<string, () => Promise<string>> = {
  'a token': async () => {
    const made = await post('/api/v1/admin/tokens', { name: randomUUID(), role: 'viewer' })
    return `/api/v1/admin/tokens/${made.body.id}`
  },
  'an agent': async () => {
    const made = await post('/agents', { name: `a-${randomUUID()}`, models: ['openai:gpt-5.2'] })
    return `/agents/${made.body.name}`
  },
}

describe.each(Object.entries(makers))('deleting %s', (_what, make) => {
  test('again under its key is answered as before, done and audited once', async () => {
    const path = await make()
    const first = await remove(path, 'k1', { reason: 'left' })
    expect({ ...first, replayed: first.headers.get('idempotent-replayed') }).toMatchObject({
      ...{ status: 204, body: null, replayed: null },
    })
    for (const _time of [1, 2]) {
      const again = await remove(path, 'k1', { reason: 'left' })
      expect(again).toMatchObject({ status: 204, body: null })
      expect(again.headers.get('idempotent-replayed')).toBe('true')
    }
    expect(await trailOf(path)).toEqual([['applied', 'left']])
  })

  test('for another reason under its key is a conflict, under another key not there any more', async () => {
    const path = await make()
    await remove(path, 'k1')
    const other = await remove(path, 'k1', { reason: 'another' })
    expectProblem(other, { status: 409, code: 'idempotency_conflict' })
    expectProblem(await remove(path, 'k2'), { status: 404, code: 'not_found' })
    expectProblem(await remove(path), { status: 404, code: 'not_found' })
    expect(await trailOf(path)).toEqual([
      ['applied', null],
      ['not_found', null],
      ['not_found', null],
    ])
  })

  test('by many at once under one key is done once', async () => {
    const path = await make()
    const answers = await Promise.all(Array.from({ length: 8 }, () => remove(path, 'rush')))
    expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 8 }, () => 204))
    const replayed = answers.filter(({ headers }) => headers.get('idempotent-replayed') === 'true')
    expect(replayed).toHaveLength(7)
    expect(await trailOf(path)).toEqual([['applied', null]])
  })

  test('is done for each thing that is named, under one key too', async () => {
    const paths = [await make(), await make()]
    for (const path of paths) expect((await remove(path, 'same')).status).toBe(204)
    for (const path of paths) expect(await trailOf(path)).toEqual([['applied', null]])
  })

  test('takes a reason and nothing else', async () => {
    const refused = await remove(await make(), undefined, { raeson: 'x' })
    expectProblem(refused, { status: 422, code: 'validation_error', paths: ['raeson'] })
  })
})

test('an agent that was declared anew is not deleted by a late repetition', async () => {
  const agent = { name: 'phoenix', models: ['openai:gpt-5.2'] }
  await post('/agents', agent)
  expect((await remove('/agents/phoenix', 'k')).status).toBe(204)
  expect((await post('/agents', agent)).status).toBe(201)
  expect((await remove('/agents/phoenix', 'k')).status).toBe(204)
  expect((await request('GET', '/agents/phoenix')).status).toBe(200)
})

test('a deletion that was refused leaves its key free', async () => {
  const path = '/agents/later'
  expectProblem(await remove(path, 'k'), { status: 404, code: 'not_found' })
  await post('/agents', { name: 'later', models: ['openai:gpt-5.2'] })
  const done = await remove(path, 'k')
  expect({ status: done.status, replayed: done.headers.get('idempotent-replayed') }).toEqual({
    ...{ status: 204, replayed: null },
  })
})

test('every operation that changes something takes a key, but those of sessions', () => {
  const without = ENDPOINTS.filter((one) => one.method !== 'GET' && !('keyed' in one))
  expect(without.map(({ id }) => id).toSorted()).toEqual(['logIn', 'logOut'])
})
