import { afterAll, describe, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

/** What the answer to a command says became of it. */
const databaseUrl = await freshDatabase()
const service = await startService({ databaseUrl })
afterAll(() => service.kill())
const { get, post, createRun, waitForRun, events, cancel, resume } = api(service)

const failed = async (more: Record<string, unknown>): Promise<Run> => {
  const run = await createRun(scripted([{ fail: 'no luck' }], more))
  return waitForRun(run.run_id)
}
/** As its event and its audit row have it. */
const told = async (runId: string) => {
  const applied = (await events(runId)).findLast((one) => one.event_type === 'command_applied')
  const { audit } = (await get('/api/v1/admin/audit?action=agent_runtime.resume&limit=1000')).body
  const row = audit.find((one: { run_id: string }) => one.run_id === runId)
  return [applied?.payload['outcome'], row.after.status]
}

describe('a resume', () => {
  test('that got the turn of its lane at once says queued', async () => {
    const { run_id } = await failed({})
    const { status, body } = await resume(run_id)
    expect(status).toBe(202)
    expect(body.command).toMatchObject({ kind: 'resume', status: 'applied', outcome: 'queued' })
    expect(await told(run_id)).toEqual(['queued', 'queued'])
  })

  test('that came into the line of its lane says so', async () => {
    const { run_id } = await failed({ conversation_id: 'busy' })
    const busy = await createRun(scripted([{ think: 60_000 }], { conversation_id: 'busy' }))
    const { body } = await resume(run_id)
    expect(body.command).toMatchObject({ status: 'applied', outcome: 'waiting_on_lane' })
    expect(body.run.status).toBe('waiting_on_lane')
    expect(await told(run_id)).toEqual(['waiting_on_lane', 'waiting_on_lane'])
    await cancel(busy.run_id)
  })
})

describe('an interrupt', () => {
  const interrupt = (runId: string, query: string) =>
    post(`/api/v1/admin/agent-runtime/subagents/${runId}/interrupt${query}`, {})

  test('waits for the end of the child, as other commands do', async () => {
    const child = { agent: 'scripted', input: { steps: [{ tool: 'slow', ms: 400 }] } }
    const steps = [{ delegate: { ...child, on_cancelled: 'continue' } }, { think: 60_000 }]
    const parent = await createRun(scripted(steps))
    const only = await eventually(async () => {
      const { children } = (await get(`/runs/${parent.run_id}/children`)).body
      return (children as Run[]).find((one) => one.status === 'waiting_on_tool') ?? false
    })
    const { status, body } = await interrupt(only.run_id, '?wait=10s')
    expect(status).toBe(202)
    expect(body.run).toMatchObject({ run_id: only.run_id, status: 'cancelled' })
    await cancel(parent.run_id)
  })

  test('says what is wrong with its wait', async () => {
    const answer = await interrupt('run_none', '?wait=soon')
    expectProblem(answer, { status: 422, code: 'validation_error', paths: ['wait'] })
  })
})
