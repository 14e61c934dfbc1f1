import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { SessionMessage } from '../../src/agents/port.ts'
import { takeTurn } from '../../src/store/reconcile.ts'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { foreignNode, type ForeignNode } from '../support/foreign-node.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { type StoreStage, storeStage } from '../support/store-stage.ts'

const url = await freshDatabase()
const sql = postgres(url, { max: 2, onnotice: () => {} })
/** Conversations whose runs end without a word of their executor; `mute` ones cannot be asked either. */
const lost = new Set<string>()
const mute = new Set<string>()
const ENDS: ReadonlySet<SessionMessage['type']> = new Set(['run.completed', 'run.failed'])

let store: StoreStage
let replica: Replica
let foreign: ForeignNode
beforeAll(async () => {
  store = await storeStage({ url, notifies: true })
  replica = await startReplica(url, {
    heartbeatTimeoutMs: 900,
    cancelTimeoutMs: 400,
    executor: (local) => (job, port, onLost) => {
      if (!lost.has(job.conversation_id)) return local(job, port, onLost)
      const send = (message: SessionMessage): void => {
        if (!ENDS.has(message.type)) port.send(message)
      }
      const session = local(job, { ...port, send }, onLost)
      if (mute.has(job.conversation_id)) session.result = async () => null
      return session
    },
  })
  foreign = await foreignNode(store, sql)
})
afterAll(async () => {
  await replica.drain()
  await store.close()
  await sql.end()
})

const client = () => api(replica)
const scripted = (steps: object[], more = {}) =>
  client().createRun({ agent: 'scripted', input: { steps }, ...more })
const ended = (runId: string): Promise<Run> => client().waitForRun(runId)
const verdictOf = async (runId: string) => {
  const verdicts = (await client().events(runId)).filter(
    ({ event_type }) => event_type === 'watchdog_verdict',
  )
  expect(verdicts).toHaveLength(1)
  return verdicts[0]?.payload
}
const auditOf = async (runId: string): Promise<string[]> => {
  const { audit } = (await client().get('/api/v1/admin/audit?limit=1000')).body
  return audit.flatMap((row: { run_id: string; action: string }) =>
    row.run_id === runId ? row.action : [],
  )
}
/** Two whole passes from now at least: each asks for the turn once for each of its six rules. */
const passes = async (): Promise<void> => {
  const turn = async () =>
    String((await sql`select until from runlane.reconciling`)[0]?.['until']?.getTime())
  for (let nth = 0; nth < 13; nth += 1) {
    const before = await turn()
    await eventually(async () => (await turn()) !== before, { message: 'the next turn' })
  }
}

describe('a run for which its node has not vouched for too long', () => {
  test('has timed out, its lane goes on, and what its node still writes is refused', async () => {
    const conversation_id = 'silent'
    const runId = await foreign.claims({ conversation_id, lane_key: conversation_id })
    const next = await scripted([{ return: 'next' }], { lane_key: conversation_id })
    const intended = await foreign.intends(runId, { type: 'run.completed', output: 1, size: 1 })
    await foreign.silences([runId])

    expect(await ended(runId)).toMatchObject({
      status: 'timed_out',
      error_message: 'Attempt 1 was lost: heartbeat.lost(900ms)',
      metadata: { resume_available: true },
    })
    expect(await ended(next.run_id)).toMatchObject({ status: 'completed', output: 'next' })
    expect(await foreign.tries(intended)).toBe(false)
    expect(await verdictOf(runId)).toMatchObject({
      action: 'time_out',
      result: 'ended',
      clock: 'heartbeat',
      limit_ms: 900,
      stuck_ms: expect.any(Number),
    })
    expect(await auditOf(runId)).toEqual(['watchdog.time_out'])
  })

  test('is spared while its node vouches for it, however little it does', async () => {
    const run = await scripted([{ tool: 'long', hang: true }])
    const beat = async () => (await client().run(run.run_id))['last_heartbeat_at']
    for (let nth = 0; nth < 4; nth += 1) {
      const before = await beat()
      await eventually(async () => (await beat()) !== before, { message: 'the next heartbeat' })
    }
    expect(await client().run(run.run_id)).toMatchObject({ status: 'waiting_on_tool' })
    await client().post(`/api/v1/admin/agent-runtime/runs/${run.run_id}/recycle`, { force: true })
  })

  test('is spared with the others when most are silent: that is an outage', async () => {
    const runs: string[] = []
    for (let nth = 0; nth < 40; nth += 1) runs.push(await foreign.claims())
    const silent = runs.slice(0, 30)
    await foreign.silences(silent)
    const node = async () => (await client().get('/api/v1/admin/agent-runtime/snapshot')).body.nodes
    const systemic = async () => (await node()).map((one: { systemic: string }) => one.systemic)
    await eventually(async () => (await systemic()).includes('heartbeat: 30 of 40 runs'))
    await passes()
    const statuses =
      await sql`select distinct status from runlane.agent_runs where run_id = any (${runs})`
    expect(statuses.map(({ status }) => status)).toEqual(['running'])
    const { audit } = (await client().get('/api/v1/admin/audit?action=watchdog.systemic')).body
    expect(audit).toMatchObject([{ actor: 'watchdog', reason: 'heartbeat: 30 of 40 runs' }])

    // Nineteen are few enough to be judged one by one.
    await foreign.vouches(silent.slice(19))
    for (const runId of silent.slice(0, 19))
      expect(await ended(runId)).toMatchObject({ status: 'timed_out' })
    await eventually(async () => (await systemic()).every((one: unknown) => one === null))
    for (const runId of [...silent.slice(19), ...runs.slice(30)])
      await foreign.writes(runId, { type: 'run.failed', code: 'over', message: 'over' })
  })
})

describe('a run that was asked to cancel and does not end', () => {
  test('is cancelled after the time-out, on whichever node it is', async () => {
    const runId = await foreign.claims({ lane_key: 'stale' })
    const next = await scripted([], { lane_key: 'stale' })
    await foreign.writes(runId, { type: 'cancel.requested', by: 'ana', reason: null })
    const intended = await foreign.intends(runId, { type: 'session.exited' })
    await foreign.vouches([runId])

    expect(await ended(runId)).toMatchObject({ status: 'cancelled' })
    expect(await foreign.tries(intended)).toBe(false)
    expect(await ended(next.run_id)).toMatchObject({ status: 'completed' })
    expect(await verdictOf(runId)).toMatchObject({ action: 'force_cancel', limit_ms: 400 })
    expect(await auditOf(runId)).toEqual(['watchdog.force_cancel'])
    const { audit } = (await client().get('/api/v1/admin/audit?action=watchdog.force_cancel')).body
    expect(audit.find((row: { run_id: string }) => row.run_id === runId)).toMatchObject({
      before: { status: 'cancel_requested' },
      after: { status: 'cancelled' },
    })
  })

  test('as a parent has the time-out from the end of its last cancelled child', async () => {
    const parent = await foreign.claims()
    const child = await foreign.claims({ parent_run_id: parent })
    for (const runId of [parent, child]) {
      await foreign.writes(runId, { type: 'cancel.requested', by: 'ana', reason: null })
    }
    await ended(child)
    await ended(parent)
    const rows =
      await sql`select run_id, ended_at from runlane.agent_runs where run_id in (${parent}, ${child})`
    const at = (runId: string) =>
      rows.find((row) => row['run_id'] === runId)?.['ended_at'].getTime()
    expect(at(parent) - at(child)).toBeGreaterThanOrEqual(400)
  })
})

describe('a run whose executor has ended it without a word', () => {
  const UNREPORTED = 'Execution completed on agent but status not reported — recovered by watchdog'

  test('gets its result when the executor still has it', async () => {
    const conversation_id = 'lost'
    lost.add(conversation_id)
    const run = await scripted([{ return: 'kept' }], { conversation_id })
    expect(await ended(run.run_id)).toMatchObject({ status: 'completed', output: 'kept' })
  })

  test('has failed when nobody knows its result', async () => {
    const conversation_id = 'mute'
    lost.add(conversation_id)
    mute.add(conversation_id)
    const run = await scripted([{ return: 'gone' }], { conversation_id })
    expect(await ended(run.run_id)).toMatchObject({ status: 'failed', error_message: UNREPORTED })
    expect(await verdictOf(run.run_id)).toMatchObject({
      action: 'recover',
      clock: 'report',
      probe: 'absent',
    })
    expect(await auditOf(run.run_id)).toEqual(['watchdog.recover'])
  })

  test('is not taken for one while its executor is blocked: nothing is known of it then', async () => {
    const run = await scripted([{ spin: 2_000 }, { return: 'well' }])
    expect(await ended(run.run_id)).toMatchObject({
      status: 'completed',
      output: 'well',
      attempt: 1,
    })
    const types = (await client().events(run.run_id)).map(({ event_type }) => event_type)
    expect(types).not.toContain('watchdog_verdict')
  })

  test('has failed when the database gives it to a node that has nothing of it', async () => {
    const runId = await foreign.claims()
    await foreign.writes(runId, { type: 'progress.reported', phase: 'thinking' })
    const [mine] =
      await sql`select max(epoch)::int as epoch from runlane.nodes where version = '0.0.0-test'`
    await sql`update runlane.agent_runs set owner_epoch = ${mine?.['epoch']} where run_id = ${runId}`
    expect(await ended(runId)).toMatchObject({ status: 'failed', error_message: UNREPORTED })
  })
})

test('a parent whose report was lost gets it again, once', async () => {
  const child = {
    delegate: { agent: 'scripted', input: { steps: [{ think: 300 }, { return: 5 }] } },
  }
  // Letters of reports are lost, as none ever should be.
  await sql`create function lose() returns trigger language plpgsql as $$ begin return null; end $$`
  await sql`create trigger lose before insert on runlane.run_inbox for each row
    when (new.kind = 'report') execute function lose()`
  const run = await scripted([child])
  await client().waitForRun(run.run_id, { until: (one) => one.status === 'waiting_on_child' })
  const [row] = await eventually(async () => {
    const rows = await sql`select run_id from runlane.agent_runs
      where parent_run_id = ${run.run_id} and ended_at is not null`
    return rows.length > 0 && rows
  })
  await passes()
  expect(await client().run(run.run_id)).toMatchObject({ status: 'waiting_on_child' })
  await sql`drop trigger lose on runlane.run_inbox`
  expect(await ended(run.run_id)).toMatchObject({ status: 'completed' })
  const finished = (await client().events(run.run_id)).filter(
    ({ event_type }) => event_type === 'child_finished',
  )
  expect(finished.map(({ payload }) => payload['child_run_id'])).toEqual([row?.['run_id']])
})

describe('a lane', () => {
  test('that an ended run still holds goes on with the next one', async () => {
    const lane_key = 'leaked'
    const runId = await foreign.claims({ lane_key })
    const next = await scripted([{ return: 1 }], { lane_key })
    const ends = await foreign.intends(runId, { type: 'run.completed', output: 1, size: 1 })
    ends.change.holds_lane = true
    ends.change.frees_lane = false
    await foreign.tries(ends)
    expect(await ended(next.run_id)).toMatchObject({ status: 'completed' })
    const [row] = await sql`select holds_lane from runlane.agent_runs where run_id = ${runId}`
    expect(row?.['holds_lane']).toBe(false)
  })

  test('that nobody holds is given to the first who waits for it', async () => {
    const lane_key = 'idle'
    const runId = await foreign.claims({ lane_key })
    const next = await scripted([{ return: 1 }], { lane_key })
    const ends = await foreign.intends(runId, { type: 'run.completed', output: 1, size: 1 })
    ends.change.frees_lane = false
    await foreign.tries(ends)
    expect(await ended(next.run_id)).toMatchObject({ status: 'completed' })
  })
})

test('a second pass changes nothing', async () => {
  const waiting = await scripted([{ tool: 'slow', hang: true }], { lane_key: 'still' })
  await client().waitForRun(waiting.run_id, { until: (run) => run.status === 'waiting_on_tool' })
  await scripted([], { lane_key: 'still' })
  await passes()
  const rows = () =>
    sql`select run_id, status, version::int, holds_lane, last_sequence from runlane.agent_runs order by run_id`
  const before = await rows()
  await passes()
  expect(await rows()).toEqual(before)
})

test('one node reconciles at a time, and the turn of one that is gone passes on', async () => {
  const { reads } = store
  const [one, other] = [await store.node(), await store.node()]
  await eventually(() => takeTurn(reads, one))
  expect(await takeTurn(reads, other)).toBe(false)
  expect(await takeTurn(reads, one)).toBe(true)
  await sql`update runlane.nodes set lease_until = runlane.now() where epoch = ${one}`
  expect(await takeTurn(reads, other)).toBe(true)
  await sql`update runlane.reconciling set epoch = null`
})
