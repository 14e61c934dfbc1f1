import postgres from 'postgres'
import { afterAll, beforeAll, expect, it } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { effectProblems, historyProblems } from '../support/chaos-checks.ts'
import { answerUntilEnded, type Retries } from '../support/chaos-human.ts'
import type { EffectBody, Effects, LoadedRun } from '../support/chaos-load.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'

const databaseUrl = await freshDatabase()
const RUNS = 40

let frozen: Service
let other: Service
let effects: EffectServer

beforeAll(async () => {
  effects = await startEffectServer()
  const env = { RUNLANE_LEASE: '1s', RUNLANE_MAX_CRASHES: '1000' }
  frozen = await startService({ databaseUrl, env: { ...env, RUNLANE_NODE_ID: 'frozen' } })
})

afterAll(async () => {
  frozen?.thaw()
  for (const service of [frozen, other]) await service?.kill()
  await effects?.close()
})

it('makes no effect and writes nothing for runs that were adopted while it was frozen', async () => {
  const runs = await Promise.all(Array.from({ length: RUNS }, (_, nth) => post(nth)))
  await eventually(() => effects.calls.length > RUNS, { message: 'effects under way' })
  const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
  const pids = await watchWriters(sql)
  frozen.freeze()
  const frozenAt = performance.now()
  other = await startService({
    databaseUrl,
    env: { RUNLANE_LEASE: '1s', RUNLANE_MAX_CRASHES: '1000', RUNLANE_NODE_ID: 'other' },
  })
  await adopted()
  expect(performance.now() - frozenAt).toBeLessThan(10_000)

  frozen.thaw()
  await eventually(() => frozen.stderr().includes('registered again under a new epoch'), {
    message: 'a new epoch of the thawed node',
  })
  const retries: Retries = new Map()
  const url = other.url
  const ended = await answerUntilEnded(runs, { url, effects, retries, timeoutMs: 60_000 })
  const evidence = { runs, ended, effects, recorded: new Map(), retries }
  expect(effectProblems(evidence)).toEqual([])
  expect(await historyProblems(url, runs)).toEqual([])
  const { lost, writes } = await afterAdoption(sql, pids)
  await sql.end()
  expect(pids.length).toBeGreaterThan(2)
  expect(lost).toBeGreaterThan(RUNS / 2)
  expect(writes).toEqual([])

  await eventually(async () => (await hostedBy(frozen)) === 'frozen', {
    timeoutMs: 20_000,
    message: 'a new run on the thawed node',
  })
}, 120_000)

const adopted = async (): Promise<void> => {
  const client = api(other)
  await eventually(
    async () => {
      const { body } = await client.get('/runs?limit=1000')
      return (body.runs as Run[]).every((run) => run.node_id !== 'frozen')
    },
    { timeoutMs: 12_000, message: 'the adoption of all runs' },
  )
}

/** From here on each event has its writer's connection beside it. */
const watchWriters = async (sql: postgres.Sql): Promise<number[]> => {
  await sql.unsafe(`
    create table public.writers (event_id bigint primary key, pid int not null);
    create function public.note_writer() returns trigger language plpgsql as
      'begin insert into public.writers values (new.id, pg_backend_pid()); return new; end';
    create trigger note_writer after insert on runlane.agent_events
      for each row execute function public.note_writer();`)
  const rows = await sql<{ pid: number }[]>`
    select pid from pg_stat_activity where application_name = 'runlane' and datname = current_database()`
  return rows.map(({ pid }) => pid)
}

/**
 * Runs that were adopted, and what these connections wrote into one of them while the other node owned it. A parked run
 * has no owner: its answer may be decided on any node.
 */
const afterAdoption = async (sql: postgres.Sql, pids: number[]) => {
  const lost = await sql`select run_id from runlane.agent_events where event_type = 'lease_lost'`
  const writes = await sql`
    select e.run_id, e.sequence, e.event_type from runlane.agent_events e
    join public.writers w on w.event_id = e.id
    join lateral (select l.id from runlane.agent_events l where l.run_id = e.run_id
      and (l.event_type in ('lease_lost', 'lease_acquired') or l.payload ->> 'to' = 'waiting_on_human') and l.id < e.id
      order by l.id desc limit 1) as latest on true
    join runlane.agent_events o on o.id = latest.id and o.event_type = 'lease_lost'
    where w.pid = any (${pids})`
  return { lost: lost.length, writes: [...writes] }
}

/** The node that a run of this moment was given to, from its first lease. */
const hostedBy = async (service: Service): Promise<string | null> => {
  const client = api(service)
  const run = await client.createRun({ agent: 'scripted', input: { steps: [{ think: 1_000 }] } })
  const seen = await client.waitForRun(run.run_id, { until: ({ status }) => status === 'running' })
  return seen.node_id
}

const EFFECTS: readonly Effects[] = ['unsafe', 'idempotent', 'none']

/** Timers that fire at the thaw, calls in flight, calls about to be made, and a blocked thread: each with effects to follow. */
const post = async (nth: number): Promise<LoadedRun> => {
  const label = `z${nth}`
  const lane = `zombie:${nth}`
  const calls = Array.from({ length: 6 }, (_, index) => ({
    callId: `c${index + 1}`,
    effects: EFFECTS[(nth + index) % 3] as Effects,
  }))
  const steps = calls.flatMap(({ callId, effects: kind }, index): object[] => {
    const body: EffectBody = { run: label, call: callId, lane, batch: null, delay_ms: 150 }
    const step = { http: `${effects.url}/${label}`, effects: kind, call_id: callId, body }
    if (nth % 10 === 9 && index === 3) return [{ spin: 600 }, step]
    return nth % 2 === 0 ? [{ think: 200 }, step] : [step, { step: `s${index}`, ms: 20 }]
  })
  const body = { agent: 'scripted', lane_key: lane, input: { steps } }
  const { run_id: runId } = await api(frozen).createRun(body)
  const names = nth % 2 === 1 && nth % 10 !== 9 ? calls.map((_, index) => `s${index}`) : []
  return { runId, label, lane, calls, steps: names }
}
