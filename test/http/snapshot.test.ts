import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { seeded } from '../support/random.ts'
import { startService } from '../support/service.ts'
import { readSse } from '../support/sse.ts'
import { scripted } from './setup.ts'

const SNAPSHOTS = 1_000
const random = seeded(Number(process.env['SNAPSHOT_SEED'] ?? 7))
const databaseUrl = await freshDatabase()
const service = await startService({ databaseUrl, env: { RUNLANE_RATE_LIMIT: '1000000' } })
const sql = postgres(databaseUrl, { max: 1 })
afterAll(async () => {
  await service.kill()
  await sql.end()
})
const { get, post, createBatch } = api(service)

interface Shown extends Run {
  readonly subagents: Shown[]
}
interface Snapshot {
  readonly summary: Record<string, number>
  readonly runs: Shown[]
  readonly truncated: boolean
  readonly cursor: number
}

const LATER = new Date(Date.now() + 3_600_000).toISOString()
const child = (steps: object[]) => ({ delegate: { agent: 'scripted', input: { steps } } })
const KINDS: (() => object)[] = [
  () => scripted([{ step: 's' }]),
  () => scripted([{ think: random.int(40) }], { lane_key: `lane-${random.int(4)}` }),
  () => scripted([{ think: 600_000 }], { lane_key: `lane-${random.int(20)}` }),
  () => scripted([child([{ think: random.int(60) }]), { step: 's' }]),
  () => scripted([child([child([{ think: 600_000 }])])]),
  () => scripted([], { run_at: LATER }),
  () => scripted([{ fail: 'no luck' }]),
]

/** Runs come, end and are cancelled until told to stop. */
async function churn(signal: AbortSignal): Promise<void> {
  while (!signal.aborted) {
    await createBatch(Array.from({ length: 3 }, () => random.pick(KINDS)()))
    const { runs } = (await get('/runs?status=running,queued,waiting_on_child&limit=200')).body
    const some = random.shuffle(runs as Run[]).slice(0, runs.length > 100 ? 8 : 2)
    for (const { run_id } of some) await post(`/runs/${run_id}/cancel`, {})
  }
}

const flat = (runs: Shown[]): Shown[] => runs.flatMap((run) => [run, ...flat(run.subagents)])
const ACTIVE = ['running', 'resuming', 'waiting_on_tool', 'waiting_on_child', 'cancel_requested']

const snapshots: Snapshot[] = []
beforeAll(async () => {
  const stop = new AbortController()
  const churning = churn(stop.signal)
  for (let taken = 0; taken < SNAPSHOTS; taken += 1)
    snapshots.push((await get('/api/v1/admin/agent-runtime/snapshot?limit=5000')).body as Snapshot)
  stop.abort()
  await churning
}, 120_000)

test('the counts of each snapshot are those of its rows, and each run is in it once', () => {
  for (const { summary, runs, truncated } of snapshots) {
    const rows = flat(runs)
    const count = (which: (run: Shown) => boolean): number => rows.filter(which).length
    const isActive = ({ status }: Shown): boolean => ACTIVE.includes(status)
    expect(summary).toEqual({
      running: count(isActive),
      stuck: count((run) => run.stuck_reason !== null),
      orphan: 0,
      queued: count(({ status }) => status === 'queued' || status === 'waiting_on_lane'),
      parked: count(({ status }) => status === 'waiting_on_human'),
      subagents_active: count((run) => isActive(run) && run.parent_run_id !== null),
    })
    expect(new Set(rows.map((run) => run.run_id)).size).toBe(rows.length)
    expect(truncated).toBe(false)
  }
})

test('children are under their parents', () => {
  let nested = 0
  for (const { runs } of snapshots) {
    const ids = new Set(flat(runs).map(({ run_id }) => run_id))
    for (const { parent_run_id } of runs) expect(ids.has(parent_run_id ?? '')).toBe(false)
    for (const run of flat(runs)) {
      for (const one of run.subagents) expect(one.parent_run_id).toBe(run.run_id)
      nested += run.subagents.length
    }
  }
  expect(nested).toBeGreaterThan(SNAPSHOTS)
})

test('each has every change up to its cursor and none after it', async () => {
  const changes = await sql<{ id: number; run_id: string; to: string }[]>`
    select id::int, run_id, payload ->> 'to' as to from runlane.agent_events
    where event_type = 'run_status_changed' order by id`
  const open = new Map<string, string>()
  let next = 0
  for (const { runs, cursor } of snapshots) {
    for (let one = changes[next]; one && one.id <= cursor; one = changes[++next]) {
      const { run_id, to } = one
      if (['completed', 'failed', 'cancelled', 'timed_out'].includes(to)) open.delete(run_id)
      else open.set(run_id, to)
    }
    const shown = new Map(flat(runs).map(({ run_id, status }) => [run_id, status]))
    expect(shown).toEqual(open)
  }
  expect(new Set(snapshots.map(({ cursor }) => cursor)).size).toBeGreaterThan(SNAPSHOTS / 4)
})

test('a stream goes on from the cursor without a gap or a repetition', async () => {
  for (const { cursor } of random.shuffle(snapshots.slice(0, SNAPSHOTS / 2)).slice(0, 20)) {
    const ids = await sql<{ id: string }[]>`
      select id::text from runlane.agent_events where id > ${cursor} order by agent_events.id limit 50`
    const stream = readSse({
      url: `${service.url}/agent-events?visibility=internal&after_event_id=${cursor}`,
      token: service.token,
    })
    const seen: string[] = []
    for await (const { id } of stream) {
      if (id !== undefined) seen.push(id)
      if (seen.length === ids.length) break
    }
    stream.close()
    expect(seen).toEqual(ids.map(({ id }) => id))
    expect(seen).toHaveLength(50)
  }
})
