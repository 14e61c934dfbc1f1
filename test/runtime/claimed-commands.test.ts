import { setTimeout as delay } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import { type Api, api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { anyWaiting, storeStage } from '../support/store-stage.ts'

/**
 * A command that is written just before its run is claimed, too late for whoever brings letters to runs in line: the claim
 * waits for the commit that writes it.
 */
const url = await freshDatabase()
const sql = postgres(url, { max: 2, onnotice: () => {} })
/** The attempts of each run whose code has begun. */
const begun: string[] = []
const eager: Agent = {
  name: 'eager',
  tools: () => undefined,
  run: async (ctx) => {
    begun.push(ctx.runId)
    await ctx.step('s', () => 1)
    await delay(1)
    throw new Error('no luck')
  },
}

let replica: Replica
let client: Api
beforeAll(async () => {
  await (await storeStage({ url, notifies: true })).close()
  await sql`insert into runlane.queues (name, paused) values ('gate', true)`
  replica = await startReplica(url, { agents: [eager] })
  client = api(replica)
})
afterAll(async () => {
  replica.die()
  await sql.end()
})

const setGate = (on: postgres.Sql | postgres.TransactionSql, paused: boolean) =>
  on`update runlane.queues set paused = ${paused} where name = 'gate'`
const inLine = (): Promise<Run> => client.createRun({ agent: 'eager', input: null, queue: 'gate' })
const failedAndResumed = async (): Promise<Run> => {
  const { run_id } = await inLine()
  await setGate(sql, false)
  await client.waitForRun(run_id)
  await setGate(sql, true)
  expect((await client.resume(run_id)).body.run).toMatchObject({ status: 'queued' })
  return client.run(run_id)
}

test.each([
  ['before its first attempt', inLine, 0],
  ['that goes on after a resume', failedAndResumed, 1],
])('a run %s ends before any of its code runs', async (_when, made, attempts) => {
  const run = await made()
  const command = {
    command_id: `cmd_${run.run_id}`,
    run_id: run.run_id,
    kind: 'cancel',
    payload: {},
    requested_by: 'ana',
    reason: null,
  }
  await sql.begin(async (transaction) => {
    await transaction`select runlane.commit(${transaction.json({ commands: [command] })})`
    await setGate(transaction, false)
    // Its flush claims as well.
    void client.createRun({ agent: 'scripted', input: { steps: [] } })
    await eventually(() => anyWaiting(sql as never), { message: 'a claim that waits' })
  })
  await setGate(sql, true)

  expect(await client.waitForRun(run.run_id)).toMatchObject({
    status: 'cancelled',
    // It was claimed: nobody has ended it in its line.
    attempt: attempts + 1,
    cancel: { acknowledged: { by: 'runtime' } },
  })
  expect(begun.filter((runId) => runId === run.run_id)).toHaveLength(attempts)
})
