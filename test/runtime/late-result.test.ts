import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { readSse } from '../support/sse.ts'
import { type StoreStage, storeStage } from '../support/store-stage.ts'

const url = await freshDatabase()
const sql = postgres(url, { max: 1, onnotice: () => {} })
const finish = Promise.withResolvers<void>()
/** Takes no notice of whoever tells it to end. */
const stubborn: Agent = {
  name: 'stubborn',
  tools: () => undefined,
  run: async () => {
    await finish.promise
    return { answer: 42 }
  },
}
/** Its end is decided, and waits for a commit that will be refused. */
const brief: Agent = {
  name: 'brief',
  tools: () => undefined,
  run: async () => {
    await finish.promise
    return 'brief'
  },
}

let store: StoreStage
let replica: Replica
beforeAll(async () => {
  store = await storeStage({ url, notifies: true })
  replica = await startReplica(url, { agents: [stubborn, brief], reconcileIntervalMs: 60_000 })
})
afterAll(async () => {
  await replica.drain()
  await store.close()
  await sql.end()
})

const client = () => api(replica)
const begun = async (agent: string): Promise<Run> => {
  const run = await client().createRun({ agent, input: {} })
  return client().waitForRun(run.run_id, { until: ({ status }) => status === 'running' })
}
const eventsOf = (runId: string) => client().events(runId)
const lateOf = (runId: string) =>
  eventually(async () =>
    (await eventsOf(runId)).find(({ event_type }) => event_type === 'late_result'),
  )

test('a result that comes after its run was ended by force is kept, and changes nothing', async () => {
  const recycled = await begun('stubborn')
  const over = await begun('brief')
  const path = `/api/v1/admin/agent-runtime/runs/${recycled.run_id}/recycle`
  expect((await client().post(path, { force: true })).status).toBe(202)
  await client().waitForRun(recycled.run_id)
  // As another node's reconciler ends it, which has not heard of this one for too long.
  const record = await store.record(over.run_id, {
    type: 'attempt.lost',
    reason: 'heartbeat.lost(5m)',
    recovery: 'manual',
    max_crashes: 99,
  })
  expect((await store.commit({ records: [record] })).accepted).toBeNull()
  await client().waitForRun(over.run_id)

  finish.resolve()

  const [first, second] = [await lateOf(recycled.run_id), await lateOf(over.run_id)]
  expect(first).toMatchObject({
    visibility: 'operator',
    payload: { status: 'completed', output: { answer: 42 } },
  })
  expect(second.payload).toEqual({ status: 'completed', output: 'brief' })
  expect(await client().run(recycled.run_id)).toMatchObject({ status: 'failed', output: null })
  expect(await client().run(over.run_id)).toMatchObject({ status: 'timed_out', output: null })
  // Offered where somebody looks who wants to go on from there.
  for (const [{ run_id }, output, at] of [
    [recycled, { answer: 42 }, first.created_at],
    [over, 'brief', second.created_at],
  ] as const) {
    const { body } = await client().get(`/runs/${run_id}/resume-preview`)
    expect(body.late_result).toEqual({ at, output })
    const { summary } = (await client().get(`/runs/${run_id}/diagnosis`)).body
    expect(summary).toContain(`A result that came after that, at ${at}, is kept and not applied`)
  }
  for (const { run_id } of [recycled, over]) {
    const late = (await eventsOf(run_id)).filter(({ event_type }) => event_type === 'late_result')
    expect(late).toHaveLength(1)
    const sequences = (await eventsOf(run_id)).map(({ sequence }) => sequence)
    expect(sequences).toEqual(sequences.map((_, nth) => nth + 1))
  }

  // The stream of an ended run ends, whatever of that its reader may see, and wherever it begins.
  const terminal = (await eventsOf(over.run_id)).findLast(
    ({ event_type }) => event_type === 'run_status_changed',
  )
  for (const visibility of ['user', 'operator', 'internal'])
    for (const after of ['', `&after_event_id=${terminal?.id}`, `&after_event_id=${second.id}`]) {
      const query = `/runs/${over.run_id}/agent-events?visibility=${visibility}${after}`
      const types: string[] = []
      for await (const frame of readSse({ url: replica.url + query, token: replica.token }))
        if (frame.data !== undefined)
          types.push((JSON.parse(frame.data) as { event_type: string }).event_type)
      const shows = visibility !== 'user' && !after.includes(String(second.id))
      expect(types.includes('late_result'), query).toBe(shows)
    }
})
