import { afterEach, expect, it } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { type Service, startService } from '../support/service.ts'

const RUNS = 450
let service: Service

afterEach(async () => {
  await service?.kill()
})

it(`takes up all of ${RUNS} active runs after a kill, however many one commit adopts`, async () => {
  const env = { RUNLANE_CONCURRENCY: '1000' }
  service = await startService({ env })
  const body = { agent: 'scripted', input: { steps: [{ think: 3_000 }] } }
  const runs = await api(service).createBatch(Array.from({ length: RUNS }, () => body))
  await eventually(async () => (await having(service, 'running')) === RUNS, { timeoutMs: 15_000 })
  await service.kill()
  service = await startService({ env, dataDir: service.dataDir })
  await eventually(async () => (await having(service, 'completed')) === RUNS, {
    timeoutMs: 40_000,
    everyMs: 500,
    message: 'the end of all runs',
  })
  const ended = await Promise.all(runs.slice(0, 20).map(({ run_id }) => api(service).run(run_id)))
  expect(new Set(ended.map((run) => run.attempt))).toEqual(new Set([2]))
}, 120_000)

const having = async (of: Service, status: Run['status']): Promise<number> => {
  const { body } = await api(of).get(`/runs?status=${status}&limit=1000`)
  return body.runs.length
}
