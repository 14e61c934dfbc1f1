import { setTimeout as delay } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { storeStage } from '../support/store-stage.ts'

const url = await freshDatabase()
const sql = postgres(url, { max: 1, onnotice: () => {} })
const replicas: Replica[] = []
/** By the name of a tree, the replica that has its root. */
const hosts = new Map<string, number>()

/** Delegates again and again, to others of its kind at first, and waits for none of them. */
const busyOn = (replica: number): Agent => ({
  name: 'busy',
  tools: { hangs: { effects: 'none', execute: () => new Promise(() => {}) } },
  run: async (ctx) => {
    const { name, depth, hangs } = ctx.input as { name: string; depth: number; hangs?: boolean }
    if (depth === 2) hosts.set(name, replica)
    if (hangs) void ctx.tool('hangs', null).catch(() => {})
    for (let nth = 0; depth > 0 && nth < 75 * depth && !ctx.signal.aborted; nth += 1) {
      void ctx.delegate('busy', { name, depth: depth - 1 }).catch(() => {})
      await delay(4)
    }
    return delay(60_000, null, { signal: ctx.signal })
  },
})

const start = async (): Promise<void> => {
  const agents = [busyOn(replicas.length)]
  replicas.push(await startReplica(url, { agents, concurrency: 30 }))
}
beforeAll(async () => {
  await (await storeStage({ url, notifies: true })).close()
  await start()
})
afterAll(async () => {
  for (const replica of replicas) replica.die()
  await sql.end()
})

const client = (nth = 0) => api(replicas[nth] as Replica)
/** A root with children and grandchildren, more of them all the time. */
const begun = async (name: string, input: object = {}, more: object = {}): Promise<Run> => {
  const body = { agent: 'busy', input: { name, depth: 2, ...input }, ...more }
  const run = await client().createRun(body)
  await eventually(async () => {
    const [row] = await sql`select count(*)::int as started from runlane.agent_runs
      where root_run_id = ${run.run_id} and owner_epoch is not null and parent_run_id <> root_run_id`
    return row?.['started'] > 5
  })
  return run
}
/** Of the runs below it, those that are open, and those that have ended after it. */
const leftBelow = async ({ run_id }: Run) => {
  const rows = await sql`select c.run_id, c.status, c.ended_at from runlane.agent_runs c
    join runlane.agent_runs r on r.run_id = c.root_run_id
    where r.run_id = ${run_id} and c.run_id <> r.run_id and (c.ended_at is null or c.ended_at > r.ended_at)`
  return rows.map((row) => ({ ...row }))
}
const recycledOn = async (replica: number, { run_id }: Run): Promise<void> => {
  const path = `/api/v1/admin/agent-runtime/runs/${run_id}/recycle`
  expect((await client(replica).post(path, { force: true })).status).toBe(202)
  expect(await client(replica).waitForRun(run_id)).toMatchObject({
    status: 'failed',
    error_code: 'recycled',
  })
}

describe('of a run that delegates without waiting nothing is left when it is ended by force', () => {
  test.each([1, 2])('on a node of its own, time %i', async (time) => {
    const run = await begun(`alone ${time}`)
    await recycledOn(0, run)
    expect(await leftBelow(run)).toEqual([])
  })

  describe('on two nodes', () => {
    beforeAll(start)

    test.each([
      ['that has it', 0],
      ['that does not have it', 1],
      ['that has it, again', 0],
      ['that does not have it, again', 1],
    ])('by a command to the one %s', async (which, away) => {
      const run = await begun(which)
      const host = hosts.get(which) ?? 0
      await recycledOn(away === 0 ? host : 1 - host, run)
      expect(await leftBelow(run)).toEqual([])
    })

    test('by the watchdog', async () => {
      const run = await begun(
        'stuck',
        { hangs: true },
        { timeouts: { tool: '400ms' }, execution_timeout_override: '200ms' },
      )
      expect(await client().waitForRun(run.run_id)).toMatchObject({
        status: 'failed',
        error_code: 'auto_terminated',
      })
      expect(await leftBelow(run)).toEqual([])
    })
  })
})
