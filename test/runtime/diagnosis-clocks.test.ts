import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import type { StartSession } from '../../src/executors/local/executor.ts'
import { LateSession } from '../../src/executors/local/pool.ts'
import type { Cause } from '../../src/runtime/diagnosis/cause.ts'
import { openDatabase } from '../../src/store/database.ts'
import { migrate } from '../../src/store/migrate.ts'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { scripted } from '../http/setup.ts'

/**
 * The clocks that a diagnosis names are those that the watchdog counts with: what it says is asked of a node that has other
 * settings, does not know the agents and hosts nothing, and held against what the run's own node then does.
 */

/** The watchdog looks every 50 ms; the rest is a commit, and a machine that has other things to do. */
const CLOSE_MS = 700

const hanging = (name: string, more: object): Agent => ({
  name,
  tools: {
    deaf: { effects: 'none', execute: () => delay(60_000, null, { ref: false }), ...more },
  } as NonNullable<Agent['tools']>,
  run: (ctx) => ctx.tool('deaf'),
})
/** Of its two calls one hangs, and the other tells of its progress until it is over. */
const twoCalls: Agent = {
  name: 'two_calls',
  tools: {
    hangs: { effects: 'none', execute: () => delay(60_000, null, { ref: false }) },
    moves: {
      effects: 'none',
      async execute(_input, { progress }) {
        for (let nth = 0; nth < 8; nth += 1) {
          await delay(100)
          progress(`${nth}`)
        }
        await delay(60_000, null, { ref: false })
      },
    },
  } as NonNullable<Agent['tools']>,
  run: (ctx) => Promise.all([ctx.tool('moves'), ctx.tool('hangs')]),
}
/** As an executor that has no thread free for the runs of a lane of this name. */
const busy =
  (local: StartSession): StartSession =>
  (job, port, onLost) => {
    if (!job.lanes.includes('busy')) return local(job, port, onLost)
    const late = new LateSession()
    setTimeout(() => late.attach(local(job, port, onLost)), 1_500)
    return late
  }

const url = await freshDatabase()
const database = openDatabase({ url, notifies: false })
let host: Replica
let other: Replica
beforeAll(async () => {
  await migrate(database.reads)
  host = await startReplica(url, {
    agents: [
      hanging('deaf', { silence_ms: 600 }),
      hanging('long', { timeout_ms: 60_000 }),
      twoCalls,
    ],
    watchdog: { reasoning: 1_500, tool: 1_500, turn: 3_000 },
    watchdogExecutorMs: 2_000,
    executor: busy,
  })
  other = await startReplica(url, { concurrency: 0 })
})
afterAll(async () => {
  for (const replica of [other, host]) replica.die()
  await database.close()
})

const create = (steps: object[], more = {}): Promise<Run> =>
  api(host).createRun(scripted(steps, more))
const until = ({ run_id }: Run, wanted: (run: Run) => boolean): Promise<Run> =>
  api(host).waitForRun(run_id, { until: wanted })
const ms = (text: string | null): number => Date.parse(text ?? 'never')

/** What the run waits for, once a clock of it counts. */
const causeOf = ({ run_id }: Run): Promise<Cause> =>
  eventually(async () => {
    const { causes } = (await api(other).get(`/runs/${run_id}/diagnosis`)).body
    const [first] = causes as Cause[]
    return first?.limit ? first : undefined
  })

const flags = async ({ run_id }: Run) =>
  (await api(host).events(run_id)).filter(({ event_type }) => event_type === 'run_stuck')

/** The named deadline is in the future, as far as the limit is from being used up, and then the watchdog flags the run. */
async function comesTrue(run: Run, told: Cause, reason: string): Promise<void> {
  const left = ms(told.deadline) - Date.now()
  expect(left).toBeGreaterThan(0)
  expect(Math.abs(left - ((told.limit ?? 0) - (told.current ?? 0)))).toBeLessThan(CLOSE_MS)
  const before = (await flags(run)).length
  const flag = await eventually(async () => (await flags(run))[before])
  expect(flag.payload['stuck_reason']).toBe(reason)
  expect(Math.abs(ms(flag.created_at) - ms(told.deadline))).toBeLessThan(CLOSE_MS)
}
const end = async ({ run_id }: Run): Promise<void> => {
  await api(host).post(`/api/v1/admin/agent-runtime/runs/${run_id}/recycle`, { force: true })
}
const child = (...steps: object[]) => ({ delegate: { agent: 'scripted', input: { steps } } })
const HANG = { tool: 't', hang: true, effects: 'none' }

test.concurrent('what a run waited for its child is no time of its turn', async () => {
  const timeouts = { turn: '1200ms', tool: '1h' }
  const run = await create([child({ step: 'k', ms: 1_500 }), HANG], { timeouts })
  await until(run, ({ status }) => status === 'waiting_on_tool')
  const told = await causeOf(run)
  expect(told).toMatchObject({ gate: 'tool.in_flight', limit: 1_200 })
  expect(told.evidence).toBe('Waiting for t. Its next deadline: turn.timeout(1200ms).')
  await comesTrue(run, told, 'turn.timeout(1200ms)')
  await end(run)
})

test.concurrent('a turn that was extended when it was over has what was added from then on', async () => {
  const timeouts = { turn: '500ms', reasoning: '1h' }
  const run = await create([{ think: 60_000 }], { timeouts })
  await until(run, ({ stuck_reason }) => stuck_reason !== null)
  // It is over by more than what is added.
  await eventually(async () => ((await causeOf(run)).current ?? 0) > 1_700)
  expect((await api(host).post(`/runs/${run.run_id}/extend`, { by: '1s' })).status).toBe(202)
  await until(run, ({ stuck_reason }) => stuck_reason === null)
  const told = await causeOf(run)
  expect(told).toMatchObject({ gate: 'progressing' })
  await comesTrue(run, told, 'turn.timeout(500ms)')
  // Found again: what it has taken is what it has really taken.
  const again = await causeOf(run)
  expect(again).toMatchObject({ gate: 'turn.exceeded', limit: told.limit, deadline: null })
  expect(again.current).toBeGreaterThan(2_700)
  expect(again.current).toBeGreaterThanOrEqual(again.limit ?? Infinity)
  await end(run)
})

test.concurrent('a call has the time that its tool declares', async () => {
  const long = await api(host).createRun({ agent: 'long', input: null, timeouts: { turn: '1h' } })
  await until(long, ({ status }) => status === 'waiting_on_tool')
  const told = await causeOf(long)
  expect(told).toMatchObject({ gate: 'tool.in_flight', limit: 60_000 })
  expect(ms(told.deadline) - ms(told.since)).toBeGreaterThanOrEqual(60_000)
  await end(long)
  const run = await api(host).createRun({ agent: 'deaf', input: null })
  await until(run, ({ status }) => status === 'waiting_on_tool')
  const short = await causeOf(run)
  expect(short.limit).toBe(600)
  // It may take two seconds to end by itself.
  await comesTrue(run, { ...short, limit: 2_600 }, 'tool_call.timeout(600ms)')
  await end(run)
})

test.concurrent('of several calls the one that is over first is named, whichever has moved', async () => {
  const run = await api(host).createRun({ agent: 'two_calls', input: null })
  const hangs = await eventually(async () => {
    const found = await causeOf(run)
    return found.holder === 'tool_2' && (found.current ?? 0) > 600 && found
  })
  await comesTrue(run, hangs, 'tool_call.timeout(1500ms)')
  await end(run)
})

test.concurrent('no clock counts before the executor begins a run, and each from then on', async () => {
  const run = await create([{ think: 60_000 }], { lane_key: 'busy' })
  await until(run, ({ status }) => status === 'running')
  const { causes } = (await api(other).get(`/runs/${run.run_id}/diagnosis`)).body
  expect(causes).toMatchObject([{ gate: 'progressing', limit: null, deadline: null }])
  expect(causes[0].evidence).toContain('about to begin it')
  await comesTrue(run, await causeOf(run), 'reasoning.no_progress(1500ms)')
  await end(run)
})

test.concurrent('to come to the next call is progress, which the diagnosis knows of', async () => {
  const run = await create([{ think: 1_000 }, { step: 'slow', ms: 60_000 }])
  const { deadline: before } = await causeOf(run)
  const told = await eventually(async () => {
    const found = await causeOf(run)
    return ms(found.deadline) - ms(before) > 500 && found
  })
  await comesTrue(run, told, 'reasoning.no_progress(1500ms)')
  await end(run)
})

test.concurrent('an executor that is blocked is known to be so, before it is flagged for that', async () => {
  const run = await create([{ spin: 6_000 }], { timeouts: { reasoning: '1h', turn: '1h' } })
  const told = await eventually(async () => {
    const found = await causeOf(run)
    return found.evidence.includes('executor.unresponsive') && found
  })
  await comesTrue(run, told, 'executor.unresponsive(2s)')
  await end(run)
})
