import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import type { Cause } from '../../src/runtime/diagnosis/cause.ts'
import { openDatabase } from '../../src/store/database.ts'
import { migrate } from '../../src/store/migrate.ts'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { scripted } from '../http/setup.ts'

/** When a stuck run is ended, as the diagnosis of another node says it, and when it is. */

const CLOSE_MS = 700
const AFTER_MS = 1_000

/** Its turn is over while a call of it is in flight, and then it waits for its child alone. */
const both: Agent = {
  name: 'both',
  tools: {
    slow: { effects: 'none', execute: () => delay(600, null, { ref: false }) },
  } as NonNullable<Agent['tools']>,
  run: (ctx) =>
    Promise.all([ctx.tool('slow'), ctx.delegate('scripted', { steps: [{ think: 2_500 }] })]).then(
      () => ctx.step('after', async () => null),
    ),
}

const url = await freshDatabase()
const database = openDatabase({ url, notifies: false })
let host: Replica
let other: Replica
beforeAll(async () => {
  await migrate(database.reads)
  const autoTerminate = { mode: 'on', afterMs: AFTER_MS } as const
  host = await startReplica(url, { agents: [both], watchdog: { tool: 400 }, autoTerminate })
  other = await startReplica(url, { concurrency: 0 })
})
afterAll(async () => {
  for (const replica of [other, host]) replica.die()
  await database.close()
})

const causesOf = async ({ run_id }: Run): Promise<Cause[]> =>
  (await api(other).get(`/runs/${run_id}/diagnosis`)).body.causes
const until = ({ run_id }: Run, wanted: (run: Run) => boolean): Promise<Run> =>
  api(host).waitForRun(run_id, { until: wanted })
const isStuck = (run: Run): boolean => run['stuck_reason'] !== null
const ms = (text: unknown): number => Date.parse(String(text))
const HANG = { tool: 't', hang: true, effects: 'none' }

async function endsWhenSaid(run: Run, deadline: string | null): Promise<void> {
  const ended = await api(host).waitForRun(run.run_id)
  expect(ended).toMatchObject({ status: 'failed', error_code: 'auto_terminated' })
  expect(Math.abs(ms(ended['ended_at']) - ms(deadline))).toBeLessThan(CLOSE_MS)
}

test('a run that is stuck is ended when that is said', async () => {
  const run = await until(await api(host).createRun(scripted([HANG])), isStuck)
  const [told] = await causesOf(run)
  expect(told).toMatchObject({ gate: 'tool.in_flight', limit: 400 })
  await endsWhenSaid(run, told?.deadline ?? null)
})

test('while it waits for its child that stands still, and so does what its turn has taken', async () => {
  const timeouts = { turn: '300ms', tool: '1h' }
  const run = await api(host).createRun({ agent: 'both', input: null, timeouts })
  await until(run, (one) => one.status === 'waiting_on_child' && isStuck(one))
  const [first] = await causesOf(run)
  expect(first).toMatchObject({ gate: 'turn.exceeded', limit: 300, deadline: null })
  await until(run, ({ status }) => status === 'running')
  const told = await eventually(async () => {
    const [found] = await causesOf(run)
    return found?.deadline ? found : undefined
  })
  expect(told.gate).toBe('turn.exceeded')
  expect((told.current ?? 0) - (first?.current ?? 0)).toBeLessThan(CLOSE_MS)
  await endsWhenSaid(run, told.deadline)
})

test('where too many would be ended at once, no end is said to come, and why', async () => {
  const all = await Promise.all(
    Array.from({ length: 25 }, () => api(host).createRun(scripted([HANG]))),
  )
  const [run] = all
  if (!run) throw new Error('no run')
  const told = await eventually(async () => {
    const [found] = await causesOf(run)
    return found?.evidence.includes('too many at once') && found
  })
  expect(told).toMatchObject({ gate: 'tool.in_flight', limit: 400, deadline: null })
  expect(told.evidence).toMatch(/\((all|tool): 2\d of 25 runs\)\.$/)
  // They are well again: who is left is ended.
  for (const { run_id } of all.slice(10)) await api(host).cancel(run_id)
  expect(await api(host).waitForRun(run.run_id)).toMatchObject({ error_code: 'auto_terminated' })
})
