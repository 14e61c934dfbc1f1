import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import { type Api, api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { storeStage } from '../support/store-stage.ts'
import { scripted } from './setup.ts'

const url = await freshDatabase()
/** Silent for longer than it may be, and then on its way again: it is stuck by turns. */
const flapping: Agent = {
  name: 'flapping',
  run: async (ctx) => {
    for (let nth = 0; !ctx.signal.aborted; nth += 1) {
      await delay(80)
      await ctx.step('s', () => nth)
    }
  },
}

let replica: Replica
let client: Api
beforeAll(async () => {
  await (await storeStage({ url, notifies: true })).close()
  replica = await startReplica(url, { agents: [flapping] })
  client = api(replica)
})
afterAll(() => replica.die())

const ROUNDS = 12
const recycle = async ({ run_id }: Run, body: object) =>
  client.post(`/api/v1/admin/agent-runtime/runs/${run_id}/recycle`, body)

test('a recycle that races with the end of its run takes nothing from its node', async () => {
  for (let round = 0; round < ROUNDS; round += 1) {
    const raced = Array.from({ length: 12 }, async (_, nth) => {
      const steps = [
        { step: 's', ms: 5 },
        { tool: 't', ms: nth * 5, effects: 'none' },
      ]
      const run = await client.createRun(scripted(steps))
      await delay((nth * 5 + round * 3) % 60)
      const { status } = await recycle(run, { force: true })
      expect([202, 409]).toContain(status)
      await client.waitForRun(run.run_id)
    })
    await Promise.all(raced)
  }
  // What no hint tells of is found by the rounds of the node: they go on.
  const run_at = new Date(Date.now() + 2_500).toISOString()
  const canary = await client.createRun(scripted([{ return: 'sings' }], { run_at }))
  expect(await client.waitForRun(canary.run_id, { timeoutMs: 8_000 })).toMatchObject({
    output: 'sings',
  })
})

test('a recycle of a run that recovers meanwhile ends it, or leaves it as it was', async () => {
  const body = { agent: 'flapping', input: null, timeouts: { reasoning: '20ms' } }
  const runs = await client.createBatch(Array.from({ length: 40 }, () => body))
  const recycled = runs.map(async (run, nth) => {
    const placeOf = async () => (await client.run(run.run_id))['current_checkpoint_id']
    for (let applied = false; !applied;) {
      await delay(20 + ((nth * 13) % 37))
      const answer = await recycle(run, {})
      if (answer.status !== 202) continue
      const command = answer.body.command
      applied = command.status === 'applied'
      if (applied) continue
      const before = await placeOf()
      await eventually(async () => (await placeOf()) !== before, { message: 'a move after it' })
    }
    expect(await client.waitForRun(run.run_id)).toMatchObject({ status: 'failed' })
  })
  await Promise.all(recycled)
})
