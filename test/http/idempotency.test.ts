import { createHash } from 'node:crypto'
import postgres from 'postgres'
import { afterAll, expect, onTestFinished, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const service = await startService({ databaseUrl })
afterAll(() => service.kill())
const { get, post, request, createRun, waitForRun } = api(service)

const runsOf = async (conversation_id: string): Promise<Run[]> =>
  (await get(`/runs?conversation_id=${conversation_id}`)).body.runs
const keyed = (key: string) => ({ 'idempotency-key': key })

test('the same body by meaning under one key is the same run, answered with 200 and Idempotent-Replayed', async () => {
  const first = await post(
    '/runs',
    '{"agent":"scripted","conversation_id":"same","input":{"steps":[{"tool":"t","result":{"a":1,"b":[1,2]}}]}}',
    keyed('k1'),
  )
  expect(first.status).toBe(202)
  expect(first.headers.get('idempotent-replayed')).toBeNull()

  const second = await post(
    '/runs',
    ' {"input": {"steps": [{"result": {"b": [1, 2], "a": 1.0}, "tool": "\\u0074"}]}, "conversation_id": "same", "agent": "scripted", "priority": 0}',
    keyed('k1'),
  )

  expect(second.status).toBe(200)
  expect(second.headers.get('idempotent-replayed')).toBe('true')
  expect(second.headers.get('location')).toBe(first.headers.get('location'))
  expect(second.body.run_id).toBe(first.body.run_id)
  expect(await runsOf('same')).toHaveLength(1)

  await waitForRun(first.body.run_id)
  const third = await createRun(scripted([], { conversation_id: 'same' }), keyed('k2'))
  expect(third.run_id).not.toBe(first.body.run_id)
})

test.each([
  ['a duration in other units', { timeouts: { turn: '60s' } }, { timeouts: { turn: '1m' } }],
  [
    'an override in other units',
    { execution_timeout_override: '1h' },
    { execution_timeout_override: '60m' },
  ],
  ['a default that is said', {}, { hold_lane_on_human: false, metadata: {}, timeouts: {} }],
  ['a null that is said', {}, { owner: null, run_at: null, callback_url: null }],
])('%s is the same request', async (what, more, same) => {
  const first = await createRun(scripted([], more), keyed(what))
  const again = await post('/runs', scripted([], same), keyed(what))

  expect(again).toMatchObject({ status: 200, body: { run_id: first.run_id } })
})

test('a repetition is answered although the request would be refused by now', async () => {
  const agent = { name: 'soon-gone', instructions: 'x', models: ['openai:gpt-x'] }
  expect((await post('/agents', agent)).status).toBe(201)
  const run_at = new Date(Date.now() + 3_600_000).toISOString()
  const body = { agent: agent.name, run_at, input: { message: 'hi' } }
  const { run_id } = await createRun(body, keyed('gone'))
  const batch = await post('/runs/batch', { runs: [body, body] }, keyed('gone'))
  expect((await request('DELETE', '/agents/soon-gone')).status).toBe(204)

  const again = await post('/runs', body, keyed('gone'))
  expect(again).toMatchObject({ status: 200, body: { run_id } })
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  const both = await post('/runs/batch', { runs: [body, body] }, keyed('gone'))
  expect(both.status).toBe(200)
  expect(both.body.runs.map((run: Run) => run.run_id)).toEqual(
    batch.body.runs.map((run: Run) => run.run_id),
  )
  expectProblem(await post('/runs', body), { status: 422, code: 'unknown_agent' })
})

test.each([
  ['a field', { owner: 'b' }],
  ['the input', { input: { steps: [{ think: 1 }] } }],
  ['the order of steps', { input: { steps: [{ think: 0 }, { say: 'x' }].toReversed() } }],
  ['an omitted conversation', { conversation_id: null }],
])('another body under one key, different in %s, is refused with 409', async (what, more) => {
  const steps = [{ think: 0 }, { say: 'x' }]
  const body = scripted(steps, { conversation_id: `other-${what}`, owner: 'a' })
  const { run_id } = await createRun(body, keyed(what))

  const response = await post('/runs', { ...body, ...more }, keyed(what))

  expectProblem(response, { status: 409, code: 'idempotency_conflict' })
  expect(response.body.run_id).toBe(run_id)
  expect(await runsOf(`other-${what}`)).toHaveLength(1)
})

test('a body without a conversation is the same body again', async () => {
  const first = await createRun(scripted([]), keyed('no conversation'))
  const second = await post('/runs', scripted([]), keyed('no conversation'))

  expect(second.status).toBe(200)
  expect(second.body.run_id).toBe(first.run_id)
})

test('a key counts per caller', async () => {
  const sql = postgres(databaseUrl, { max: 1 })
  const hash = createHash('sha256').update('the-token-of-another').digest('hex')
  const row = { id: 'tok_2', name: 'another', role: 'admin', hash, created_at: new Date() }
  await sql`insert into runlane.api_tokens ${sql(row)}`
  await sql.end()
  const other = api({ url: service.url, token: 'the-token-of-another' })

  const mine = await createRun(scripted([]), keyed('shared'))
  const theirs = await other.createRun(scripted([], { owner: 'x' }), keyed('shared'))

  expect(theirs.run_id).not.toBe(mine.run_id)
  expect([mine['created_by'], theirs['created_by']]).toEqual(['token:admin', 'token:another'])
})

test('twenty posts at once with one key make one run', async () => {
  const body = scripted([{ tool: 't' }], { conversation_id: 'at-once' })
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => post('/runs', body, keyed('at once'))),
  )

  expect(new Set(answers.map((answer) => answer.body.run_id)).size).toBe(1)
  expect(answers.filter((answer) => answer.status === 202)).toHaveLength(1)
  expect(answers.filter((answer) => answer.status === 200)).toHaveLength(19)
  expect(await runsOf('at-once')).toHaveLength(1)
})

test('twenty batches at once with one key are one batch, in its order', async () => {
  const conversation_id = 'batch-at-once'
  const runs = Array.from({ length: 10 }, (_, n) =>
    scripted([], { conversation_id, owner: `o${n}` }),
  )
  const answers = await Promise.all(
    Array.from({ length: 20 }, () => post('/runs/batch', { runs }, keyed('batch'))),
  )

  expect(answers.filter((answer) => answer.status === 202)).toHaveLength(1)
  const orders = answers.map((answer) => answer.body.runs.map((run: Run) => run.run_id).join())
  expect(new Set(orders).size).toBe(1)
  expect(answers[0]?.body.runs.map((run: Run) => run.owner)).toEqual(runs.map((_, n) => `o${n}`))
  expect(await runsOf(conversation_id)).toHaveLength(10)

  const fewer = await post('/runs/batch', { runs: runs.slice(1) }, keyed('batch'))
  expectProblem(fewer, { status: 409, code: 'idempotency_conflict' })
  const more = await post('/runs/batch', { runs: [...runs, runs[0]] }, keyed('batch'))
  expectProblem(more, { status: 409, code: 'idempotency_conflict' })
  expect(await runsOf(conversation_id)).toHaveLength(10)
})

test('a batch of which some runs were deleted is answered with those that are left, and made again when none is', async () => {
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
  onTestFinished(() => sql.end())
  const owners = ['a', 'b', 'c']
  const runs = owners.map((owner) => scripted([], { owner, conversation_id: 'partly' }))
  const ask = () => post('/runs/batch', { runs }, keyed('partly'))
  const first = (await ask()).body.runs as Run[]
  await Promise.all(first.map(({ run_id }) => waitForRun(run_id)))
  const forget = async (gone: Run[]): Promise<void> => {
    const ids = gone.map(({ run_id }) => run_id)
    await sql`delete from runlane.agent_runs where run_id = any (${ids})`
  }

  await forget(first.slice(0, 2))
  const again = await ask()
  expect(again.status).toBe(200)
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  expect(again.body.runs.map(({ run_id }: Run) => run_id)).toEqual([first[2]?.run_id])
  expect(await runsOf('partly')).toHaveLength(1)

  await forget(await runsOf('partly'))
  const anew = await ask()
  expect(anew.status).toBe(202)
  expect(anew.body.runs).toHaveLength(3)
})

test('a key whose post replaced the input of a waiting run is remembered as well', async () => {
  const lane_key = 'coalesced'
  const holder = await createRun(scripted([{ think: 60_000 }], { lane_key }))
  const waiting = await createRun(scripted([], { lane_key }))
  const body = scripted([{ return: 'replaced' }], { lane_key, lane_policy: 'coalesce' })
  const first = await post('/runs', body, keyed('coalesced'))
  expect(first.body.run_id).toBe(waiting.run_id)
  await post(`/runs/${holder.run_id}/cancel`)
  await waitForRun(waiting.run_id)

  const again = await post('/runs', body, keyed('coalesced'))

  expect(again.status).toBe(200)
  expect(again.headers.get('idempotent-replayed')).toBe('true')
  expect(again.body.run_id).toBe(waiting.run_id)
})

test('a key is remembered over a crash of the service', async () => {
  const local = await startService()
  const before = api(local)
  const { run_id } = await before.createRun(scripted([]), keyed('durable'))
  await local.kill()
  const again = await local.restart()
  onTestFinished(() => void again.kill())

  const response = await api(again).post('/runs', scripted([]), keyed('durable'))

  expect(response.status).toBe(200)
  expect(response.body.run_id).toBe(run_id)
})
