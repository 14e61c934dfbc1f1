import { afterAll, expect, onTestFinished, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { caughtInCall } from './recovery-setup.ts'
import { scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
let service = await startService({ databaseUrl, env: { RUNLANE_LEASE: '1s' } })
afterAll(() => service.kill())
const { get, createRun, waitForRun, cancel } = api(service)

/** What of a run says that a call is under way, wherever it is shown. */
const expectSilent = async ({ run_id, conversation_id }: Run): Promise<void> => {
  const path = `/conversations/${conversation_id}/agent-status`
  const rows = [
    (await get(`/runs/${run_id}`)).body,
    (await get(`/runs?conversation_id=${conversation_id}`)).body.runs[0],
    (await get('/api/v1/admin/agent-runtime/snapshot')).body.runs.find(
      (run: Run) => run.run_id === run_id,
    ),
    (await get(path)).body,
  ]
  for (const row of rows) expect(row).toMatchObject({ run_id, phase: null })
  expect((await get(path, { accept: 'text/html' })).body).not.toContain('calling')
}

test('a run that was asked to cancel is no longer said to be calling something', async () => {
  const run = await createRun(scripted([{ tool: 'pay', ms: 600_000 }]))
  onTestFinished(async () => {
    const path = `/api/v1/admin/agent-runtime/runs/${run.run_id}/recycle`
    await api(service).post(path, { force: true })
  })
  const calling = await waitForRun(run.run_id, { until: ({ tool }) => tool === 'pay' })
  expect(calling).toMatchObject({ status: 'waiting_on_tool', phase: 'calling pay' })
  await cancel(run.run_id)
  await waitForRun(run.run_id, { until: ({ status }) => status === 'cancel_requested' })
  await expectSilent(run)
})

test.each(['is killed', 'drains'])(
  'nor is one that asks a human what became of its call when its node %s',
  async (how) => {
    const steps = (url: string) => [{ http: `${url}/pay`, body: { hang: true } }]
    const { run_id, effects } = await caughtInCall(api(service), steps, 1)
    onTestFinished(() => effects.close())
    const calling = await waitForRun(run_id, { until: ({ phase }) => phase !== null })
    expect(calling.phase).toMatch(/^calling /)
    await (how === 'drains' ? service.stop() : service.kill())
    service = await service.restart()
    const until = ({ status }: Run): boolean => status === 'waiting_on_human'
    await expectSilent(await waitForRun(run_id, { until }))
  },
)
