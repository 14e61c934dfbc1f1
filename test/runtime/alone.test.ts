import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import { api } from '../support/api.ts'
import { templateDatabase, type World, worldOf } from '../support/in-process.ts'
import { scripted } from '../http/setup.ts'

let template: Awaited<ReturnType<typeof templateDatabase>>
let world: World
beforeAll(async () => {
  template = await templateDatabase(inject('databaseUrl'))
  world = await worldOf(inject('databaseUrl'), template.name, { leaseMs: 400, concurrency: 1 })
})
afterAll(async () => {
  await world.close()
  await template.drop()
})

test('runs of a dead node that came to light after the start of a node that is alone are taken over as well', async () => {
  const alone = await world.start({ alone: true })
  const client = api(alone)
  const { run_id: own } = await client.createRun(scripted([{ think: 600_000 }]))
  await client.waitForRun(own, { until: ({ status }) => status === 'running' })
  // The one place of the first node is taken.
  const dying = await world.start()
  const { run_id } = await client.createRun(scripted([{ step: 's' }, { think: 1_000 }]))
  await client.waitForRun(run_id, { until: ({ status }) => status === 'running' })

  dying.die()

  const run = await client.waitForRun(run_id)
  expect(run).toMatchObject({ status: 'completed', attempt: 2 })
})
