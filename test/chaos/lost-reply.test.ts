import postgres from 'postgres'
import { afterAll, beforeAll, beforeEach, expect, it } from 'vitest'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'
import { startTcpProxy, type TcpProxy, upstreamOf } from '../support/tcp-proxy.ts'

const databaseUrl = await freshDatabase()
const SCRIPT = { steps: [{ step: 'only' }] }

let proxy: TcpProxy
let service: Service

beforeAll(async () => {
  proxy = await startTcpProxy(upstreamOf(databaseUrl))
  service = await startService({ databaseUrl: proxy.url(databaseUrl) })
})

// The dropped reply has to be that of the test's own commit, so nothing else may be under way.
beforeEach(async () => {
  const client = api(service)
  const body = { ...runOf('warm-up'), input: SCRIPT }
  const warm = await eventually(async () => {
    const answer = await client.post('/runs', body)
    return answer.status === 202 ? answer.body : undefined
  })
  await client.waitForRun(warm.run_id)
})

afterAll(async () => {
  await service?.stop()
  await proxy?.close()
})

it('creates a run once although the reply to its commit was lost', async () => {
  const drop = proxy.dropNextCommitReply()
  const run = await api(service).createRun({ ...runOf('lost-create'), input: SCRIPT })
  await drop.dropped
  expect(await api(service).waitForRun(run.run_id)).toMatchObject({
    status: 'completed',
    attempt: 1,
  })
  const { body } = await api(service).get('/runs?conversation_id=lost-create')
  expect(body.runs).toHaveLength(1)
})

it('does not let an interrupting run cancel itself when the reply to its commit was lost', async () => {
  const drop = proxy.dropNextCommitReply()
  const body = {
    ...runOf('lost-interrupt'),
    lane_policy: 'interrupt',
    input: { steps: [{ think: 1_500 }] },
  }
  const run = await api(service).createRun(body)
  await drop.dropped
  expect(await api(service).waitForRun(run.run_id)).toMatchObject({ status: 'completed' })
})

it('writes one audit row for a command although the reply to its commit was lost', async () => {
  const client = api(service)
  const run = await client.createRun({
    ...runOf('lost-audit'),
    input: { steps: [{ think: 60_000 }] },
  })
  const drop = proxy.dropNextCommitReply()
  const answer = await client.request('POST', `/runs/${run.run_id}/cancel?wait=10s`, {
    body: { reason: 'lost-reason' },
  })
  await drop.dropped
  expect(answer.status).toBe(202)
  expect((await client.waitForRun(run.run_id)).status).toBe('cancelled')
  const sql = postgres(databaseUrl, { max: 1 })
  const rows =
    await sql`select action, outcome from runlane.audit_events where run_id = ${run.run_id}`
  await sql.end()
  expect([...rows]).toEqual([{ action: 'agent_runtime.cancel', outcome: 'applied' }])
})

const runOf = (conversation: string) => ({ agent: 'scripted', conversation_id: conversation })
