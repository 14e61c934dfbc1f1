import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Cause } from '../../src/runtime/diagnosis/cause.ts'
import type { Rules } from '../../src/runtime/diagnosis/clocks.ts'
import { diagnose } from '../../src/runtime/diagnosis/diagnosis.ts'
import { openDatabase, type Sql } from '../../src/store/database.ts'
import { waitFacts } from '../../src/store/diagnosis.ts'
import { migrate } from '../../src/store/migrate.ts'
import { isTerminal, type RunRow } from '../../src/store/rows.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { type Random, seeded } from '../support/random.ts'

/** HISTORIES=5000 for all of them; HISTORY_SEED repeats one that failed. */
const HISTORIES = Number(process.env['HISTORIES'] ?? 100)
const SEED = Number(process.env['HISTORY_SEED'] ?? 1)
const AT_ONCE = 25
const MOVES = 5
const OPTIONS = { leaseMs: 500, concurrency: 60, cancelTimeoutMs: 500 }
const RULES: Rules = {
  ...OPTIONS,
  queueTimeoutMs: 3_600_000,
  recovery: 'auto',
}

const url = await freshDatabase()
const database = openDatabase({ url, notifies: false })
const { reads } = database
let replicas: Replica[] = []
beforeAll(async () => {
  await migrate(reads)
  await reads`insert into runlane.queues (name, concurrency, paused, paused_by, paused_at)
    values ('narrow', 2, false, null, null), ('paused', null, true, 'olga', runlane.now())`
  replicas = await Promise.all([startReplica(url, OPTIONS), startReplica(url, OPTIONS)])
})
afterAll(async () => {
  for (const replica of replicas) replica.die()
  await database.close()
})
const client = (random: Random) => api(random.pick(replicas))

const LONG = { think: 600_000 }
const child = (steps: object[], more = {}) => ({
  delegate: { agent: 'scripted', input: { steps }, ...more },
})
const stepsOf = (random: Random): object[] =>
  random.pick([
    [{ step: 's' }],
    [LONG],
    [{ tool: 't', hang: true, effects: 'none' }],
    [{ tool: 'unsafe', ms: 30 }, { step: 's' }],
    [child([LONG])],
    [child([{ step: 's' }]), LONG],
    [child([child([LONG])], { detach: random.chance(0.3) }), { step: 's' }],
    [{ fail: 'no luck' }],
    [{ think: random.int(40) }, { return: 1 }],
  ])

/** One move of a history: what callers and operators do, in lanes that its runs share. */
async function move(random: Random, name: string): Promise<void> {
  const { createRun, get, cancel, respond } = client(random)
  const { runs } = (await get(`/runs?conversation_id=${name}&limit=50`)).body
  const some = runs.length > 0 ? random.pick<{ run_id: string }>(runs).run_id : null
  const act = random.next()
  if (some && act < 0.2) return void (await cancel(some))
  if (some && act < 0.3) return void (await respond(some, { outcome: 'retry' }))
  const run_at = new Date(Date.now() + random.pick([20, 3_600_000])).toISOString()
  await createRun({
    ...{ agent: 'scripted', conversation_id: name, input: { steps: stepsOf(random) } },
    lane_key: `${name}-${random.int(2)}`,
    queue: random.pick(['default', 'default', 'default', 'narrow', 'paused']),
    ...(random.chance(0.15) ? { run_at } : {}),
  })
}

const diagnosisOf = (read: Sql, runId: string) =>
  diagnose(runId, { read: (id) => waitFacts(read, id), rules: RULES })

/** Of one moment: every open run of the histories, what is said of it, and whether that is so. */
async function judge(names: readonly string[]): Promise<number> {
  return reads.begin('isolation level repeatable read read only', async (transaction) => {
    const read = transaction as unknown as Sql
    const open = await read<{ run_id: string }[]>`
      select run_id from runlane.agent_runs where ended_at is null and conversation_id = any (${[...names]})`
    await Promise.all(open.map(({ run_id }) => judgeRun(read, run_id)))
    return open.length
  })
}

async function judgeRun(read: Sql, runId: string): Promise<void> {
  const found = await diagnosisOf(read, runId)
  const { causes = [] } = found ?? {}
  expect(
    causes.some((one) => one.run_id === runId),
    runId,
  ).toBe(true)
  for (const one of causes)
    expect(await holds(read, one), `${JSON.stringify(one)} of ${runId}`).toBe(true)
}

/** Whether a cause is true of its run, asked in another way than the diagnosis does. */
async function holds(read: Sql, { gate, run_id, holder }: Cause): Promise<boolean> {
  const [run] = await read<(RunRow & { lease_over: boolean; long_over: boolean })[]>`
    select r.*, coalesce((select n.lease_until < runlane.now() or n.status in ('dead', 'stopped')
      from runlane.nodes n where n.epoch = r.owner_epoch), true) as lease_over,
    -- The clock goes on while it is asked.
    coalesce((select n.lease_until < runlane.now() - interval '1 second' or n.status in ('dead', 'stopped')
      from runlane.nodes n where n.epoch = r.owner_epoch), true) as long_over
    from runlane.agent_runs r where run_id = ${run_id}`
  if (!run || isTerminal(run.status)) return false
  const one = async (query: Promise<readonly object[]>) => (await query).length === 1
  switch (gate) {
    case 'lane.held_by':
      return one(read`select from runlane.agent_runs where run_id = ${holder} and holds_lane and ended_at is null
        and lane_key = ${run.lane_key} and run_id <> ${run_id}`)
    case 'not_before':
      return run.status === 'queued' && !run.holds_lane && run.run_at !== null
    case 'queue.paused':
      return one(read`select from runlane.queues where name = ${run.queue} and paused`)
    case 'queue.at_capacity':
      return run.status === 'queued' && run.holds_lane
    case 'queue.no_node':
      return one(read`select where not exists (select from runlane.nodes
        where status = 'serving' and lease_until > runlane.now())`)
    case 'tool.in_flight':
      return run.status === 'waiting_on_tool'
    case 'child.waiting':
      return holder === null
        ? one(
            read`select where exists (select from runlane.agent_runs where parent_run_id = ${run_id} and ended_at is not null)`,
          )
        : one(
            read`select from runlane.agent_runs where run_id = ${holder} and parent_run_id = ${run_id} and ended_at is null`,
          )
    case 'human.waiting':
      return holder === null
        ? one(read`select where exists (select from runlane.run_inbox where run_id = ${run_id})`)
        : one(
            read`select from runlane.waitpoints where token_id = ${holder} and run_id = ${run_id} and status = 'pending'`,
          )
    case 'cancel.unacknowledged':
      return run.status === 'cancel_requested'
    case 'node.lost':
      return run.owner_epoch !== null && run.lease_over
    case 'progressing':
      return run.owner_epoch !== null && !run.long_over && run.stuck_reason === null
    default:
      // The watchdog's findings and missing wakers have no place in these histories.
      return false
  }
}

test(
  `in ${HISTORIES} random histories every open run has a cause, and what is said is so`,
  async () => {
    const random = seeded(SEED)
    let judged = 0
    for (let first = 0; first < HISTORIES; first += AT_ONCE) {
      const names = Array.from(
        { length: Math.min(AT_ONCE, HISTORIES - first) },
        (_, n) => `h${first + n}`,
      )
      for (let nth = 0; nth < MOVES; nth += 1) {
        await Promise.all(names.map((name) => move(random, name)))
        if (random.chance(0.5)) judged += await judge(names)
      }
      if (random.chance(0.15)) {
        replicas.shift()?.die()
        judged += await judge(names)
        replicas.push(await startReplica(url, OPTIONS))
      }
      judged += await judge(names)
      await clear(names)
    }
    expect(judged).toBeGreaterThan(HISTORIES)
  },
  Math.max(60_000, HISTORIES * 300),
)

/** Makes room for the next ones. */
async function clear(names: readonly string[]): Promise<void> {
  const open = await reads<{ run_id: string }[]>`select run_id from runlane.agent_runs
    where ended_at is null and conversation_id = any (${[...names]}) order by run_id desc`
  const [replica] = replicas
  if (!replica) throw new Error('no replica')
  await Promise.all(open.map(({ run_id }) => api(replica).cancel(run_id)))
}

const gateOf = async (runId: string): Promise<Cause | undefined> =>
  (await diagnosisOf(reads, runId))?.causes.find((one) => one.run_id === runId)

test('a waker that was lost is named, and nothing is said to progress', async () => {
  const [replica] = replicas
  if (!replica) throw new Error('no replica')
  const { createRun, waitForRun } = api(replica)
  const until = (status: string) => ({ until: (run: { status: string }) => run.status === status })
  const scripted = (steps: object[], more = {}) => ({
    agent: 'scripted',
    input: { steps },
    ...more,
  })
  const holder = await createRun(scripted([LONG], { lane_key: 'free' }))
  const behind = await createRun(scripted([], { lane_key: 'free' }))
  const parent = await createRun(scripted([child([LONG])]))
  await waitForRun(holder.run_id, until('running'))
  await waitForRun(parent.run_id, until('waiting_on_child'))
  const [only] = await eventually(async () => {
    const rows = await reads<{ run_id: string }[]>`
        select run_id from runlane.agent_runs where parent_run_id = ${parent.run_id} and status = 'running'`
    return rows.length === 1 && rows
  })
  // As nobody would leave it: all nodes are gone, the child is over without its letter, the lane without its turn.
  for (const one of replicas.splice(0)) one.die()
  await reads`update runlane.nodes set status = 'dead', lease_until = runlane.now() - interval '1 minute'`
  await reads`update runlane.agent_runs set status = 'completed', ended_at = runlane.now(), owner_epoch = null,
    holds_lane = false where run_id = any (${[holder.run_id, only?.run_id ?? '']})`
  expect(await gateOf(behind.run_id)).toMatchObject({ gate: 'waker.missing', holder: null })
  const { causes = [] } = (await diagnosisOf(reads, parent.run_id)) ?? {}
  expect(causes).toMatchObject([
    { gate: 'node.lost', run_id: parent.run_id },
    { gate: 'waker.missing', run_id: parent.run_id, holder: only?.run_id },
  ])
})
