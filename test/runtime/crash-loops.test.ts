import { once } from 'node:events'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { type Replica, templateDatabase, type World, worldOf } from '../support/in-process.ts'

const MAX_CRASHES = 3
const slow = { steps: [{ tool: 'slow', ms: 60_000, effects: 'none' }] }

/** Steps whose work has begun, by their runs. */
const working = new Set<string>()
/** It delegates, and works itself meanwhile; the input says in which order it asks for that. */
const BESIDE: Agent = {
  name: 'beside',
  async run(ctx) {
    const delegates = () => ctx.delegate('scripted', slow)
    const works = () =>
      ctx.step('work', async ({ signal }) => {
        working.add(ctx.runId)
        await once(signal, 'abort')
      })
    const [first, second] = ctx.input === 'child first' ? [delegates, works] : [works, delegates]
    return Promise.all([first(), second()])
  },
}

const template = await templateDatabase(inject('databaseUrl'))
let world: World
let replica: Replica
beforeAll(async () => {
  const options = { maxCrashes: MAX_CRASHES, agents: [BESIDE] }
  world = await worldOf(inject('databaseUrl'), template.name, options)
  replica = await world.start()
})
afterAll(async () => {
  await world.close()
  await template.drop()
})

const client = () => api(replica)
const crash = async (): Promise<void> => {
  replica.die()
  working.clear()
  replica = await world.start({ alone: true })
}
const childOf = async ({ run_id }: Run): Promise<Run> => {
  const children = async () => (await client().get(`/runs/${run_id}/children`)).body.children
  return eventually(async () => (await children())[0])
}
const inAttempt = (attempt: number, status: string) => ({
  until: (run: Run) => run.attempt === attempt && run.status === status,
})
const parked = { until: ({ status }: Run) => status === 'waiting_on_human' }

test('of a tree it is the run at work that is found to take its node with it, and nobody who waits for it', async () => {
  const child = { agent: 'scripted', input: slow }
  const middle = { agent: 'scripted', input: { steps: [{ delegate: child }] } }
  const body = { agent: 'scripted', lane_key: 'mine', input: { steps: [{ delegate: middle }] } }
  const root = await client().createRun(body)
  const between = await childOf(root)
  const leaf = await childOf(between)
  for (let crashes = 1; crashes <= MAX_CRASHES; crashes += 1) {
    for (const one of [root, between])
      await client().waitForRun(one.run_id, inAttempt(crashes, 'waiting_on_child'))
    await client().waitForRun(leaf.run_id, inAttempt(crashes, 'waiting_on_tool'))
    await crash()
  }

  expect(await client().waitForRun(leaf.run_id, parked)).toMatchObject({ detail: 'crash_loop' })
  // However often that happens.
  for (let crashes = MAX_CRASHES + 1; crashes <= MAX_CRASHES + 2; crashes += 1) {
    for (const one of [root, between])
      await client().waitForRun(one.run_id, inAttempt(crashes, 'waiting_on_child'))
    if (crashes === MAX_CRASHES + 1) await crash()
  }
  const next = await client().createRun(body)
  expect(next.status).toBe('waiting_on_lane')
  await client().cancel(next.run_id)

  await client().respond(leaf.run_id, { outcome: 'retry' })
  await client().waitForRun(leaf.run_id, { until: ({ status }) => status === 'waiting_on_tool' })
  await client().cancel(root.run_id)
  expect(await client().waitForRun(root.run_id)).toMatchObject({ status: 'cancelled' })
})

test.each(['child first', 'work first'])(
  'a run that works beside the child that it waits for is at work: %s',
  async (input) => {
    const run = await client().createRun({ agent: 'beside', input })
    for (let crashes = 1; crashes <= MAX_CRASHES; crashes += 1) {
      await client().waitForRun(run.run_id, inAttempt(crashes, 'waiting_on_child'))
      await eventually(() => working.has(run.run_id))
      await crash()
    }
    expect(await client().waitForRun(run.run_id, parked)).toMatchObject({ detail: 'crash_loop' })
    await client().cancel(run.run_id)
  },
)
