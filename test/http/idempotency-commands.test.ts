import postgres from 'postgres'
import { afterAll, expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
const service = await startService({ databaseUrl })
afterAll(async () => {
  await service.kill()
  await sql.end()
})
const { get, post, createRun, waitForRun, events } = api(service)

const keyed = (key: string) => ({ 'idempotency-key': key })
const thinking = (more = {}) => createRun(scripted([{ think: 60_000 }], more))
const commandsOf = async (runId: string) =>
  (await sql`select command_id from runlane.run_commands where run_id = ${runId}`).length
const auditsOf = async (runId: string) =>
  (await sql`select id from runlane.audit_events where run_id = ${runId}`).length

test('a cancel repeated under one key is one command and one audit row', async () => {
  const { run_id } = await thinking()
  const cancel = (body: object = { reason: 'enough' }, key = 'c1') =>
    post(`/runs/${run_id}/cancel`, body, keyed(key))

  const answers = await Promise.all(Array.from({ length: 8 }, () => cancel()))
  await waitForRun(run_id)
  const late = await cancel()

  expect(answers.map(({ status }) => status)).toEqual(Array(8).fill(202))
  const ids = [...answers, late].map(({ body }) => body.command.command_id)
  expect(new Set(ids).size).toBe(1)
  expect(late.status).toBe(202)
  expect(late.headers.get('idempotent-replayed')).toBe('true')
  expect(late.body).toMatchObject({ command: { status: 'applied' }, run: { status: 'cancelled' } })
  expect(await commandsOf(run_id)).toBe(1)
  expect(await auditsOf(run_id)).toBe(1)
  expectProblem(await cancel({ reason: 'another' }), { status: 409, code: 'idempotency_conflict' })
  expectProblem(await cancel({ reason: 'enough' }, 'c2'), { status: 409, code: 'not_cancellable' })
})

test('a key counts for its path: the same one cancels another run', async () => {
  const runs = [await thinking(), await thinking()]
  for (const { run_id } of runs) {
    expect((await post(`/runs/${run_id}/cancel`, {}, keyed('shared'))).status).toBe(202)
    expect(await waitForRun(run_id)).toMatchObject({ status: 'cancelled' })
  }
})

test('a conversation cancelled again under one key spares the run that is active by then', async () => {
  const conversation_id = 'c-cancelled-once'
  const first = await thinking({ conversation_id })
  const path = `/conversations/${conversation_id}/agent-runs/cancel`
  expect((await post(path, {}, keyed('k'))).status).toBe(202)
  await waitForRun(first.run_id)
  const second = await thinking({ conversation_id })

  const again = await post(path, {}, keyed('k'))

  expect(again).toMatchObject({ status: 202, body: { run_id: first.run_id, status: 'cancelled' } })
  expect((await get(`/runs/${second.run_id}`)).body.cancel_requested).toBe(false)
  await post(path, {}, keyed('k2'))
  expect(await waitForRun(second.run_id)).toMatchObject({ status: 'cancelled' })
})

test('a resume repeated under one key resumes once, though the run has failed again', async () => {
  const { run_id } = await createRun(scripted([{ step: 'a' }, { fail: 'boom' }]))
  await waitForRun(run_id)
  const resume = () => post(`/agent-runs/${run_id}/resume?wait=20s`, {}, keyed('r1'))
  const first = await resume()
  expect(first.body.run).toMatchObject({ status: 'failed', attempt: 2 })

  const second = await resume()

  expect(second.body.command.command_id).toBe(first.body.command.command_id)
  expect(second.body.run).toMatchObject({ status: 'failed', attempt: 2 })
  const resumed = (await events(run_id)).filter(({ event_type }) => event_type === 'run_resumed')
  expect(resumed).toHaveLength(1)
})

test.each([
  ['an empty key', ''],
  ['a key of 256 characters', 'k'.repeat(256)],
])('%s is 422 and commands nothing', async (_name, key) => {
  const { run_id } = await thinking()
  const refused = await post(`/runs/${run_id}/cancel`, {}, keyed(key))
  expectProblem(refused, { status: 422, code: 'validation_error' })
  expect(refused.body.errors[0].path).toBe('Idempotency-Key')
  expect(await commandsOf(run_id)).toBe(0)
  await post(`/runs/${run_id}/cancel`, {})
})
