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
  // Nobody but the first can claim the runs until the second is there.
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
  expect(await writesOfTheDead()).toEqual([])

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

/** Events between the adoption of a run and its end that name the old epoch, or whose attempt went on there. */
const writesOfTheDead = async (): Promise<unknown[]> => {
  const sql = postgres(databaseUrl, { max: 1 })
  try {
    const rows = await sql`
      select e.run_id, e.sequence, e.event_type, e.payload from runlane.agent_events e
      join lateral (select id, (payload ->> 'epoch')::bigint as epoch from runlane.agent_events l
        where l.run_id = e.run_id and l.event_type = 'lease_lost' order by id limit 1) as lost on true
      where e.id > lost.id and e.event_type = 'lease_acquired' and (e.payload ->> 'epoch')::bigint = lost.epoch`
    return [...rows]
  } finally {
    await sql.end()
  }
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
