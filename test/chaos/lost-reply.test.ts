import postgres from 'postgres'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { api } from '../support/api.ts'
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
  expect(answer).toMatchObject({ status: 202, body: { command: { status: 'applied' } } })
  expect((await client.waitForRun(run.run_id)).status).toBe('cancelled')
  const sql = postgres(databaseUrl, { max: 1 })
  const rows =
    await sql`select action, outcome from runlane.audit_events where run_id = ${run.run_id}`
  await sql.end()
  expect([...rows]).toEqual([{ action: 'agent_runtime.cancel', outcome: 'applied' }])
})

const runOf = (conversation: string) => ({ agent: 'scripted', conversation_id: conversation })
