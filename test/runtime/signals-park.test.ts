import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import type { Json } from '../../src/json.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { storeStage } from '../support/store-stage.ts'

const url = await freshDatabase()
const sql = postgres(url, { max: 2, onnotice: () => {} })
const got: Json[] = []
const begin = Promise.withResolvers<void>()
const reader: Agent = {
  name: 'reader',
  tools: () => undefined,
  run: async (ctx) => {
    await begin.promise
    got.push(await ctx.signalNamed('x'))
    return ctx.step('then', () => got.length)
  },
}
let replica: Replica
beforeAll(async () => {
  const store = await storeStage({ url, notifies: true })
  await store.close()
  replica = await startReplica(url, { agents: [reader], reconcileIntervalMs: 60_000 })
})
afterAll(async () => {
  await replica.drain()
  await sql.end()
})

test('a signal given to a call while the park of its run is being committed is there for the next attempt', async () => {
  const { createRun, waitForRun } = api(replica)
  const { run_id } = await createRun({ agent: 'reader', input: {} })
  await waitForRun(run_id, { until: ({ status }) => status === 'running' })

  await sql.begin(async (held) => {
    await held`select pg_advisory_xact_lock(7420)`
    begin.resolve()
    await eventually(async () => {
      const [row] = await sql`select count(*)::int as n from pg_locks
        where locktype = 'advisory' and objid = 7420 and not granted
          and database = (select oid from pg_database where datname = current_database())`
      return row?.['n'] === 1
    })
    await sql`insert into runlane.run_inbox (run_id, kind, name, dedupe_key, payload, created_at, due)
      values (${run_id}, 'signal', 'x', 'cmd_x', '{"data": "it", "by": "test"}', runlane.now(), false)`
    // The session is not told of the park before it is committed: it is given the signal, and its code goes on.
    await eventually(() => got.length === 1)
  })

  expect(await waitForRun(run_id)).toMatchObject({ status: 'completed', output: 2, attempt: 2 })
  expect(got).toEqual(['it', 'it'])
  expect(await sql`select from runlane.run_inbox where run_id = ${run_id}`).toHaveLength(0)
})
