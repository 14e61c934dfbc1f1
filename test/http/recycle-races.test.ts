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
/** One of its calls hangs, the others move now and then: it is stuck by turns. */
const flapping: Agent = {
  name: 'flapping',
  tools: {
    hangs: { effects: 'none', execute: () => new Promise(() => {}) },
    moves: {
      effects: 'none',
      execute: async (after: number, { progress, signal }) => {
        await delay(after)
        for (let nth = 0; !signal.aborted; nth += 1) {
          progress(`${after} ${nth}`)
          await delay(1_000)
        }
      },
    },
  },
  run: (ctx) =>
    Promise.all([
      ctx.tool('hangs', null),
      ...Array.from({ length: 40 }, (_, nth) => ctx.tool('moves', nth * 25)),
    ]),
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
  const body = { agent: 'flapping', input: null, timeouts: { tool: '150ms' } }
  const runs = await client.createBatch(Array.from({ length: 24 }, () => body))
  const recycled = runs.map(async (run, nth) => {
    const phaseOf = async () => (await client.run(run.run_id))['phase']
    for (let applied = false; !applied;) {
      await delay(20 + ((nth * 13) % 37))
      const answer = await recycle(run, {})
      if (answer.status !== 202) continue
      const command = answer.body.command
      applied = command.status === 'applied'
      if (applied) continue
      const before = await phaseOf()
      await eventually(async () => (await phaseOf()) !== before, { message: 'a move after it' })
    }
    expect(await client.waitForRun(run.run_id)).toMatchObject({ status: 'failed' })
  })
  await Promise.all(recycled)
})
