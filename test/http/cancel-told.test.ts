/** What a run says of its cancel: asked for, brought to it, answered, over; when, and whose word it is. */
import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { DATABASES, scripted, serveOnBoth } from './setup.ts'

const LONG = { think: 600_000 }
const at = expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/)
const asked = { at, by: 'token:admin' }

const effects = await startEffectServer()
afterAll(() => effects.close())
const served = await serveOnBoth({
  env: { RUNLANE_NODE_ID: 'node-1', RUNLANE_CANCEL_TIMEOUT: '1s' },
})

/** Whatever has happened has happened in this order. */
const expectInOrder = ({ cancel }: Run): void => {
  const times: number[] = ['requested', 'delivered', 'acknowledged', 'confirmed'].flatMap((name) =>
    cancel[name] ? Date.parse(cancel[name].at) : [],
  )
  expect(times).toEqual(times.toSorted((a, b) => a - b))
}

describe.each(DATABASES)('on %s', (database) => {
  const { createRun, waitForRun, run, cancel, get, post } = served[database]
  const reaches = (one: Run, status: string): Promise<Run> =>
    waitForRun(one.run_id, { until: (now) => now.status === status })

  test('a run that waits: all at once, and nothing of it was there to be asked', async () => {
    const lane_key = `told-${database}`
    const holder = await createRun(scripted([LONG], { lane_key }))
    const waiting = await createRun(scripted([], { lane_key }))
    expect([holder.cancel, waiting.cancel]).toEqual([null, null])

    const { body } = await cancel(waiting.run_id, { reason: 'enough' })

    expect(body.run.cancel).toEqual({
      reason: 'enough',
      requested: asked,
      delivered: { at, by: 'node-1' },
      acknowledged: { at, by: 'runtime' },
      confirmed: { at, by: 'runtime' },
    })
    expectInOrder(body.run)
    expect((await run(holder.run_id)).cancel).toBeNull()
    await cancel(holder.run_id)
  })

  test('a run in a call: the executor answers at its boundary', async () => {
    const calls = effects.calls.length
    const { run_id } = await createRun(scripted([{ http: effects.url, body: { hang: true } }]))
    await eventually(() => effects.calls.length > calls)
    const { body } = await cancel(run_id)
    const delivered = {
      reason: null,
      requested: asked,
      delivered: { at, by: 'node-1' },
      acknowledged: null,
      confirmed: null,
    }
    expect(body.run.cancel).toEqual(delivered)
    await cancel(run_id, { reason: 'again' })
    expect((await run(run_id)).cancel).toEqual(body.run.cancel)
    effects.release()

    const done = await waitForRun(run_id)
    expect(done.cancel).toEqual({
      ...body.run.cancel,
      acknowledged: { at: done['ended_at'], by: 'executor' },
      confirmed: { at: done['ended_at'], by: 'runtime' },
    })
    expectInOrder(done)
  })

  test('a run that does not answer: a hard stop, acknowledged by nobody', async () => {
    const created = await createRun(scripted([{ tool: 't', hang: true }]))
    await reaches(created, 'waiting_on_tool')
    await cancel(created.run_id, { reason: 'enough' })

    const done = await waitForRun(created.run_id)
    expect(done.cancel).toMatchObject({
      requested: asked,
      acknowledged: null,
      confirmed: { at: done['ended_at'], by: 'hard stop' },
    })
    expectInOrder(done)
    const { audit } = (await get('/api/v1/admin/audit?action=watchdog.force_cancel')).body
    expect(audit.find((row: { run_id: string }) => row.run_id === done.run_id)).toMatchObject({
      before: { status: 'cancel_requested' },
      after: { status: 'cancelled' },
    })
  })

  test('a child is cancelled in the name of who cancelled its parent', async () => {
    const parent = await createRun(
      scripted([{ delegate: { agent: 'scripted', input: { steps: [LONG] } } }]),
    )
    const child = await eventually(
      async () =>
        (await get(`/runs/${parent.run_id}/children`)).body.children[0] as Run | undefined,
    )
    expect('cancel' in child).toBe(false)
    await reaches(child, 'running')
    await cancel(parent.run_id, { reason: 'enough' })
    await waitForRun(parent.run_id)

    expect((await run(child.run_id)).cancel).toMatchObject({
      reason: 'the run that delegated it was cancelled: enough',
      requested: asked,
      delivered: { by: 'node-1' },
      acknowledged: { by: 'executor' },
      confirmed: { by: 'runtime' },
    })
  })

  test('a child of a run that is ended by force: brought by the node that ended it', async () => {
    const parent = await createRun(
      scripted([{ delegate: { agent: 'scripted', input: { steps: [LONG] } } }]),
    )
    const child = await eventually(
      async () =>
        (await get(`/runs/${parent.run_id}/children`)).body.children[0] as Run | undefined,
    )
    await reaches(child, 'running')
    await post(`/api/v1/admin/agent-runtime/runs/${parent.run_id}/recycle`, { force: true })
    await waitForRun(parent.run_id)

    expect((await run(child.run_id)).cancel).toMatchObject({
      requested: { by: parent.run_id },
      delivered: { by: 'node-1' },
      acknowledged: null,
      confirmed: { by: 'hard stop' },
    })
  })

  test('a cancel that came too late is none', async () => {
    const { run_id } = await createRun(scripted([]))
    await waitForRun(run_id)
    expect((await cancel(run_id)).status).toBe(409)
    expect((await run(run_id)).cancel).toBeNull()
  })
})

test('while the node of the run is frozen, its cancel is asked for and not delivered', async () => {
  const databaseUrl = await freshDatabase()
  const node = (id: string) =>
    startService({ databaseUrl, env: { RUNLANE_NODE_ID: id, RUNLANE_LEASE: '60s' } })
  const frozen = await node('frozen')
  onTestFinished(() => frozen.kill().then(() => {}))
  const created = await api(frozen).createRun(scripted([LONG]))
  await api(frozen).waitForRun(created.run_id, { until: ({ status }) => status === 'running' })
  const other = await node('other')
  onTestFinished(() => other.kill().then(() => {}))
  process.kill(frozen.pid, 'SIGSTOP')

  const { status, body } = await api(other).cancel(created.run_id, { reason: 'enough' })

  expect([status, body.command.status]).toEqual([202, 'pending'])
  expect(body.run).toMatchObject({
    status: 'running',
    cancel_requested: false,
    cancel: { reason: 'enough', requested: asked, delivered: null, confirmed: null },
  })
  process.kill(frozen.pid, 'SIGCONT')
  const done = await api(other).waitForRun(created.run_id)
  expect(done.cancel).toMatchObject({
    requested: body.run.cancel.requested,
    delivered: { by: 'frozen' },
    acknowledged: { by: 'executor' },
    confirmed: { by: 'runtime' },
  })
  expectInOrder(done)
})
