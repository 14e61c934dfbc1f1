import { afterAll, expect, test } from 'vitest'
import { scripted } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { parseExposition, valueOf } from '../support/exposition.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'

const databaseUrl = await freshDatabase()
const services: Service[] = []
afterAll(async () => {
  for (const service of services) {
    service.thaw()
    await service.kill()
  }
})
const start = async (name: string): Promise<Service> => {
  const env = { RUNLANE_LEASE: '1s', RUNLANE_NODE_ID: name }
  const service = await startService({ databaseUrl, env })
  services.push(service)
  return service
}
const totalOf = async (service: Service, name: string): Promise<number | undefined> =>
  valueOf(parseExposition((await api(service).get('/metrics')).body), `runlane_${name}_total`)

test('a lease that is lost is counted where it was, the runs that are adopted where they went', async () => {
  const frozen = await start('frozen')
  const { createBatch, waitForRun } = api(frozen)
  const runs = await createBatch(Array.from({ length: 5 }, () => scripted([{ think: 60_000 }])))
  for (const { run_id } of runs)
    await waitForRun(run_id, { until: ({ status }) => status === 'running' })
  frozen.freeze()
  const other = await start('other')
  await eventually(async () => (await totalOf(other, 'runs_adopted')) === 5, { timeoutMs: 15_000 })

  frozen.thaw()

  await eventually(async () => (await totalOf(frozen, 'leases_lost')) === 1, { timeoutMs: 15_000 })
  expect(await totalOf(frozen, 'runs_started')).toBe(5)
  expect(await totalOf(frozen, 'runs_adopted')).toBe(0)
  expect(await totalOf(other, 'leases_lost')).toBe(0)
  expect(await totalOf(other, 'runs_started')).toBe(0)
}, 60_000)
