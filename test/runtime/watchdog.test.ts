import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import type { StartSession } from '../../src/executors/local/executor.ts'
import { LateSession } from '../../src/executors/local/pool.ts'
import type { Run } from '../support/api.ts'
import { templateDatabase, type World, type WorldOptions, worldOf } from '../support/in-process.ts'
import { names, play, type Play } from '../support/scenario.ts'

const DEADLINE_MS = 20_000

const admin = inject('databaseUrl')
let template: Awaited<ReturnType<typeof templateDatabase>>
beforeAll(async () => {
  template = await templateDatabase(admin)
})
afterAll(() => template.drop())

/** A service of its own, with clocks of some hundred milliseconds. */
async function on(
  options: WorldOptions,
  tell: (stage: Play, world: World, die: () => void) => Promise<void>,
): Promise<void> {
  const world = await worldOf(admin, template.name, options)
  try {
    const replica = await world.start()
    await tell(play(replica, DEADLINE_MS), world, () => replica.die())
  } finally {
    await world.close()
  }
}

const WATCHED = new Set(['run_stuck', 'run_recovered', 'watchdog_verdict'])
/** What the watchdog has told of a run. */
const told = async (stage: Play, run: Run) =>
  (await stage.events(run)).filter(({ event_type }) => WATCHED.has(event_type))

test('no clock judges a run before its executor has begun it, and each counts from then on', () => {
  // As an executor that has no thread free for it.
  const busyFor =
    (ms: number) =>
    (local: StartSession): StartSession =>
    (job, port, onLost) => {
      const late = new LateSession()
      setTimeout(() => late.attach(local(job, port, onLost)), ms)
      return late
    }
  const limits = { reasoning: 400, turn: 800 }
  return on({ executor: busyFor(1_200), watchdog: limits }, async (stage) => {
    const well = await stage.post([{ think: 200 }])
    const slow = await stage.post([{ think: 2_000 }])
    expect(await stage.ends(well)).toMatchObject({ status: 'completed' })
    expect(await told(stage, well)).toEqual([])
    expect(await stage.ends(slow)).toMatchObject({ status: 'completed' })
    const reasons = (await told(stage, slow)).map(({ payload }) => payload['stuck_reason'])
    expect(reasons).toEqual(['reasoning.no_progress(400ms)'])
  })
})

test('the turn of a run that waits for its child stands still, and goes on behind it', () =>
  on({}, async (stage) => {
    const steps = [{ think: 1_500 }]
    const child = { delegate: { agent: 'scripted', input: { steps }, timeouts: { turn: '1h' } } }
    const limits = { timeouts: { turn: '600ms' }, execution_timeout_override: '100ms' }
    const run = await stage.post([child, { step: 'after' }], limits)
    expect(await stage.ends(run)).toMatchObject({ status: 'completed' })
    expect(await told(stage, run)).toEqual([])
    const longer = await stage.post([child, { think: 60_000 }], limits)
    expect(await stage.ends(longer)).toMatchObject({ error_code: 'auto_terminated' })
    const [stuck] = await told(stage, longer)
    expect(stuck?.payload).toMatchObject({ stuck_reason: 'turn.timeout(600ms)' })
  }))

test('a turn that is extended when its time is up has all of what was added left', () =>
  on({ watchdog: { turn: 400 } }, async (stage) => {
    const run = await stage.post([{ think: 1_500 }, { step: 'held' }, { think: 60_000 }])
    await stage.tells(run, 'run_stuck')
    // When this has ended, the other is over its time by more than a second.
    await stage.ends(await stage.post([{ think: 1_500 }], { timeouts: { turn: '1h' } }))
    const { status } = await stage.api.post(`/runs/${run.run_id}/extend`, { by: '1s' })
    expect(status).toBe(202)
    await stage.api.waitForRun(run.run_id, { until: (one) => one['stuck_reason'] === null })
    await stage.api.waitForRun(run.run_id, { until: (one) => one['stuck_reason'] !== null })
    const [first, recovered, again] = await told(stage, run)
    expect(names([first, recovered, again].flatMap((one) => one ?? []))).toEqual([
      'run_stuck',
      'run_recovered',
      'run_stuck',
    ])
    const lastedMs = Date.parse(again?.created_at ?? '') - Date.parse(recovered?.created_at ?? '')
    expect(lastedMs).toBeGreaterThan(950)
    expect(lastedMs).toBeLessThan(1_900)
    await stage.api.cancel(run.run_id)
  }))

test('a call that hangs is told of as such when the turn is over too, and behind it that keeps the run', () =>
  on({ watchdog: { tool: 300, turn: 600 } }, async (stage) => {
    const run = await stage.post([{ tool: 'slow', ms: 1_500 }, { tool: 'next' }])
    await stage.tells(run, 'run_recovered')
    const reasons = ['tool_call.timeout(300ms)', 'tool_call.timeout(300ms)', 'turn.timeout(600ms)']
    await stage.api.waitForRun(run.run_id, { until: (one) => one.status !== 'waiting_on_tool' })
    await stage.api.waitForRun(run.run_id, {
      until: (one) => one['stuck_reason'] === 'turn.timeout(600ms)',
    })
    const found = (await told(stage, run)).map(({ payload }) => payload['stuck_reason'])
    expect(found).toEqual(reasons)
    expect(await stage.results(run)).toMatchObject([{ tool: 'slow', outcome: 'succeeded' }])
    await stage.api.post(`/runs/${run.run_id}/extend`, { by: '1h' })
    expect(await stage.ends(run)).toMatchObject({ status: 'completed' })
    const lost = await stage.post([{ tool: 'lost', hang: true }])
    await stage.tells(lost, 'run_stuck')
    // When this is held, the turn of the other one is over as well.
    const later = await stage.post([{ step: 'long', ms: 1_000 }, { step: 'held' }])
    await stage.tells(later, 'run_stuck')
    await stage.api.post(`/api/v1/admin/agent-runtime/runs/${lost.run_id}/recycle`)
    expect(await stage.ends(lost)).toMatchObject({
      error_message: expect.stringContaining('tool_call.timeout(300ms)'),
    })
    await stage.api.cancel(later.run_id)
  }))

const calling = (name: string, more: object): Agent => ({
  name,
  tools: {
    slow: {
      effects: 'none',
      execute: (_input: unknown, { signal }: { signal: AbortSignal }) =>
        delay(900, null, { signal }),
      ...more,
    },
  } as NonNullable<Agent['tools']>,
  run: (ctx) => ctx.tool('slow'),
})

test('a call has the time that its tool declares, unless the run says otherwise', () => {
  const agents = [
    calling('declared', { timeout_ms: 30_000 }),
    calling('silent', { silence_ms: 30_000 }),
    calling('plain', {}),
  ]
  return on({ agents, watchdog: { tool: 300 } }, async (stage) => {
    const stuckIn = async (agent: string, more = {}) => {
      const run = await stage.api.createRun({ agent, input: null, ...more })
      expect(await stage.ends(run)).toMatchObject({ status: 'completed' })
      return (await told(stage, run)).map(({ payload }) => payload['stuck_reason'])
    }
    const twice = (limit: string) => Array(2).fill(`tool_call.timeout(${limit})`)
    expect(await stuckIn('declared')).toEqual([])
    expect(await stuckIn('silent')).toEqual([])
    expect(await stuckIn('plain')).toEqual(twice('300ms'))
    expect(await stuckIn('declared', { timeouts: { tool: '200ms' } })).toEqual(twice('200ms'))
  })
})

test('what was found of an attempt is told to be over when the next one takes its place', () =>
  on({ watchdog: { tool: 300 } }, async (stage, world, die) => {
    const hang = { tool: 'lost', hang: true, effects: 'idempotent' }
    const run = await stage.post([{ step: 'begun' }, hang])
    await stage.tells(run, 'run_stuck')
    die()
    const after = play(await world.start({ alone: true }), DEADLINE_MS)
    await after.api.waitForRun(run.run_id, {
      until: (one) => one.attempt === 2 && one['stuck_reason'] !== null,
    })
    expect(names(await told(after, run))).toEqual(['run_stuck', 'run_recovered', 'run_stuck'])
    await after.api.cancel(run.run_id)
  }))
