import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Rules } from '../../src/runtime/diagnosis/clocks.ts'
import { diagnose } from '../../src/runtime/diagnosis/diagnosis.ts'
import { openDatabase } from '../../src/store/database.ts'
import { waitFacts } from '../../src/store/diagnosis.ts'
import { migrate } from '../../src/store/migrate.ts'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Replica, startReplica } from '../support/in-process.ts'
import { scripted } from '../http/setup.ts'

/** What an operator on call is told. */
const LIMITS = { reasoning: 60_000, tool: 400, turn: 90_000 }
const OPTIONS = { watchdog: LIMITS, cancelTimeoutMs: 30_000, queueTimeoutMs: 120_000 }

const url = await freshDatabase()
const database = openDatabase({ url, notifies: false })
const { reads: sql } = database
let host: Replica
beforeAll(async () => {
  await migrate(sql)
  host = await startReplica(url, { ...OPTIONS, concurrency: 6 })
})
afterAll(async () => {
  host.die()
  await database.close()
})

const RULES: Rules = {
  queueTimeoutMs: OPTIONS.queueTimeoutMs,
  cancelTimeoutMs: OPTIONS.cancelTimeoutMs,
  concurrency: 6,
  recovery: 'auto',
}

const create = (steps: object[], more: Record<string, unknown> = {}): Promise<Run> =>
  api(host).createRun(scripted(steps, more))
const until = (run: Run, wanted: (run: Run) => boolean): Promise<Run> =>
  api(host).waitForRun(run.run_id, { until: wanted })
const isStuck = (run: Run): boolean => run['stuck_reason'] !== null
const diagnosisOf = async ({ run_id }: { run_id: string }) =>
  (await api(host).get(`/runs/${run_id}/diagnosis`)).body
/** Its causes as soon as this limit counts: its executor has begun it. */
const clocked = (run: Run, limit: number) =>
  eventually(async () => {
    const { causes } = await diagnosisOf(run)
    return causes[0].limit === limit && causes
  })
const end = async (...runs: Run[]): Promise<void> => {
  const path = '/api/v1/admin/agent-runtime/runs'
  for (const { run_id } of runs) await api(host).cancel(run_id)
  for (const { run_id } of runs)
    await api(host).post(`${path}/${run_id}/recycle?wait=5s`, { force: true })
}
const childOf = (run: Run) =>
  eventually(async () => {
    const { children } = (await api(host).get(`/runs/${run.run_id}/children`)).body
    return children.length > 0 && (children as Run[])
  })
const ms = (text: string): number => Date.parse(text)

const HANG = { tool: 'q', hang: true, effects: 'none' }
const THINK = { think: 600_000 }
const child = (...steps: object[]) => ({ agent: 'scripted', input: { steps } })

describe('the sentence', () => {
  test('says of a run behind a stuck child that it is stuck there, and which one of them', async () => {
    const well = Array.from({ length: 2 }, () => child(THINK))
    const parent = await create([{ delegate_all: [...well, child(HANG)] }])
    await eventually(async () => (await childOf(parent)).some(isStuck))
    const stuck = (await childOf(parent)).find(isStuck)
    const { summary, causes } = await diagnosisOf(parent)
    expect(summary).toBe(
      `The run is waiting_on_child: Waiting for ${stuck?.run_id} (scripted), which is waiting_on_tool and stuck, and for 2 more. There: The watchdog found its call of q stuck: tool_call.timeout(400ms).`,
    )
    expect(causes[0]).toMatchObject({ gate: 'child.waiting', current: 3 })
    await end(parent)
  })

  test('names the run where the trouble is, however far away', async () => {
    const parent = await create([{ delegate: child({ delegate: child(HANG) }) }])
    const behind = await create([], { conversation_id: parent['conversation_id'] })
    const [middle] = await childOf(parent)
    const [leaf] = await childOf(middle as Run)
    await until(leaf as Run, isStuck)
    expect((await diagnosisOf(behind)).summary).toMatch(
      new RegExp(
        `^The run is waiting_on_lane: .* which is waiting_on_child; 0 ahead in line\\. At ${leaf?.run_id}: The watchdog found its call of q stuck: `,
      ),
    )
    await end(parent)
  })

  test('says what goes on at the end of the chain where nothing is wrong', async () => {
    const parent = await create([{ delegate: child(THINK) }])
    const [first] = await childOf(parent)
    await until(first as Run, ({ status }) => status === 'running')
    expect((await diagnosisOf(parent)).summary).toMatch(/which is running\. There: It works\. /)
    await end(parent)
  })
})

describe('a cause', () => {
  test('that is a stuck call is named once, with its clock', async () => {
    const run = await until(await create([HANG]), isStuck)
    const { causes } = await diagnosisOf(run)
    expect(causes).toMatchObject([
      { gate: 'tool.in_flight', holder: 'tool_1', limit: 400, action: 'stop it or recycle it' },
    ])
    expect(causes[0].current).toBeGreaterThanOrEqual(400)
    expect(causes[0].deadline).toBeNull()
    await end(run)
  })

  test('that is a stuck call which will be ended says when', async () => {
    const run = await until(await create([HANG], { execution_timeout_override: '1h' }), isStuck)
    const [only] = (await diagnosisOf(run)).causes
    expect(ms(only.deadline) - Date.now()).toBeGreaterThan(3_590_000)
    expect(ms(only.deadline) - Date.now()).toBeLessThan(3_600_000)
    await end(run)
  })

  test('that is progress has its node, the clock that is over first, how far it is, and when it is over', async () => {
    const run = await create([THINK], { timeouts: { reasoning: '40s' } })
    const { last_progress_at } = await until(run, ({ status }) => status === 'running')
    const [only] = await clocked(run, 40_000)
    expect(only).toMatchObject({
      gate: 'progressing',
      holder: expect.stringMatching(/./),
      evidence: 'It works. Its next deadline: reasoning.no_progress(40s).',
      action: null,
    })
    expect(only.holder).toBe((await api(host).run(run.run_id))['node_id'])
    expect(only.current).toBeLessThan(40_000)
    expect(ms(only.deadline) - ms(only.since)).toBe(40_000)
    expect(Math.abs(ms(only.since) - ms(last_progress_at as string))).toBeLessThan(500)
    await end(run)
  })

  test('that is progress has the end of the turn where that comes first, what was added to it too', async () => {
    const run = await create([THINK], { timeouts: { turn: '10s' } })
    const { started_at } = await until(run, ({ status }) => status === 'running')
    await api(host).post(`/runs/${run.run_id}/extend`, { by: '5s' })
    const [only] = await clocked(run, 15_000)
    expect(only.evidence).toContain('turn.timeout')
    expect(ms(only.deadline) - ms(only.since)).toBe(15_000)
    expect(Math.abs(ms(only.since) - ms(started_at as string))).toBeLessThan(500)
    await end(run)
  })

  test('that is a full node says how many it takes, and when the run in line is given up', async () => {
    const busy = await Promise.all(Array.from({ length: 6 }, () => create([THINK])))
    for (const run of busy) await until(run, ({ status }) => status === 'running')
    const run = await create([])
    const { causes } = await diagnosisOf(run)
    expect(causes).toMatchObject([{ gate: 'queue.at_capacity', limit: 6, current: 6 }])
    const [{ since, deadline }] = causes
    expect(ms(deadline)).toBe(ms(since) + OPTIONS.queueTimeoutMs)
    await end(run, ...busy)
  })

  test('that is a full node names the run that took its slot first, or the one that is stuck', async () => {
    const first = await create([THINK])
    const busy = await Promise.all(Array.from({ length: 4 }, () => create([THINK])))
    const last = await create([{ step: 'long', ms: 1_200 }, HANG])
    for (const run of [first, ...busy]) await until(run, ({ status }) => status === 'running')
    const run = await create([])
    const told = await diagnosisOf(run)
    expect(told.causes).toMatchObject([
      {
        gate: 'queue.at_capacity',
        holder: first.run_id,
        action: expect.stringMatching(/^wait for /),
      },
    ])
    expect(told.causes[0].action).toContain(first.run_id)
    await until(last, isStuck)
    const { summary, causes } = await diagnosisOf(run)
    expect(causes).toMatchObject([
      {
        holder: last.run_id,
        action: `stop or recycle ${last.run_id}, start a node, or raise RUNLANE_CONCURRENCY`,
      },
    ])
    expect(summary).toContain(`${last.run_id} (scripted), which is waiting_on_tool and stuck`)
    // What it says is true.
    await end(last)
    expect(await until(run, ({ status }) => status === 'completed')).toBeDefined()
    await end(first, ...busy)
  })

  test('that is a cancel on its way says when it is ended hard', async () => {
    const run = await create([{ tool: 'q', hang: true }])
    await until(run, ({ status }) => status === 'waiting_on_tool')
    await api(host).cancel(run.run_id)
    const [first] = await eventually(async () => {
      const { causes } = await diagnosisOf(run)
      return causes[0]?.gate === 'cancel.unacknowledged' && causes
    })
    expect(first).toMatchObject({ limit: 30_000, holder: 'tool_1' })
    expect(ms(first.deadline)).toBe(ms(first.since) + 30_000)
    await end(run)
  })
})

/** The last of all: nobody hosts anything after it. */
test('a run whose node has died says that first', async () => {
  const run = await until(await create([HANG]), isStuck)
  const behind = await create([], { conversation_id: run['conversation_id'] })
  host.die()
  await sql`update runlane.nodes set status = 'dead', last_seen_at = runlane.now() - interval '25 seconds'`
  const told = ({ run_id }: Run) =>
    diagnose(run_id, { read: (id) => waitFacts(sql, id), rules: RULES })
  const { summary = '', causes = [] } = (await told(run)) ?? {}
  expect(causes.map(({ gate }) => gate)).toEqual(['node.lost', 'tool.in_flight'])
  expect(summary).toMatch(
    /^The run is waiting_on_tool and stuck: Its node \S+ was seen last at \S+\.$/,
  )
  expect(causes[0]?.action).toMatch(/^start a node/)
  expect(causes[0]?.current).toBeGreaterThanOrEqual(25_000)
  expect((await told(behind))?.summary).toMatch(/ There: Its node \S+ was seen last at \S+\.$/)
})
