import { setTimeout as delay } from 'node:timers/promises'
import { afterAll, beforeAll, expect, inject, test } from 'vitest'
import type { Agent } from '../../src/agents/agent.ts'
import type { Run } from '../support/api.ts'
import { templateDatabase, type World, worldOf } from '../support/in-process.ts'
import { play, type Play } from '../support/scenario.ts'

const REASONING = 'reasoning.no_progress(500ms)'
const TURN = 'turn.timeout(600ms)'

/** Works by itself for so many rounds, and calls nothing. */
const ROUNDS: Agent = {
  name: 'rounds',
  async run(ctx) {
    for (let nth = 0; nth < Number(ctx.input); nth += 1) {
      await ctx.boundary()
      await delay(150, undefined, { signal: ctx.signal })
    }
    return 'done'
  },
}

const template = await templateDatabase(inject('databaseUrl'))
let world: World
let stage: Play
beforeAll(async () => {
  const options = { watchdog: { reasoning: 500 }, agents: [ROUNDS] }
  world = await worldOf(inject('databaseUrl'), template.name, options)
  stage = play(await world.start(), 20_000)
})
afterAll(async () => {
  await world.close()
  await template.drop()
})

const stuckIn = async (run: Run): Promise<unknown[]> =>
  (await stage.events(run)).flatMap(({ event_type, payload }) =>
    event_type === 'run_stuck' ? [payload['stuck_reason']] : [],
  )
const rounds = (input: number, more: object = {}): Promise<Run> =>
  stage.api.createRun({ agent: 'rounds', input, ...more })
const thinks = (times: number, ms: number) => Array.from({ length: times }, () => ({ think: ms }))
const silentMs = ({ last_progress_at, started_at }: Run): number =>
  Date.parse(String(last_progress_at)) - Date.parse(String(started_at))

test.each([
  ['that thinks', () => stage.post(thinks(8, 150))],
  ['that blocks its thread', () => stage.post(Array.from({ length: 5 }, () => ({ spin: 200 })))],
  ['whose code comes to boundaries', () => rounds(8)],
])('a run %s in short steps moves', async (_what, post) => {
  const run = await post()
  expect(await stage.ends(run)).toMatchObject({ status: 'completed' })
  expect(await stuckIn(run)).toEqual([])
})

test('a step that is too long is found, however steady those before it were', async () => {
  const run = await stage.post([...thinks(3, 150), { think: 1_500 }, { think: 1 }])
  expect(await stage.ends(run)).toMatchObject({ status: 'completed' })
  expect(await stuckIn(run)).toEqual([REASONING])
})

test('its progress is told to others', async () => {
  const run = await stage.post(thinks(100, 100))
  const moved = { until: (one: Run) => one.status === 'running' && silentMs(one) > 1_800 }
  await stage.api.waitForRun(run.run_id, moved)
  expect(await stuckIn(run)).toEqual([])
  await stage.api.cancel(run.run_id)
})

test.each([
  ['think', () => stage.post(thinks(30, 50), { timeouts: { turn: '600ms' } })],
  ['of its code', () => rounds(10, { timeouts: { turn: '600ms' } })],
])('a run whose turn is over is held at the next step: %s', async (_what, post) => {
  const run = await post()
  await stage.api.waitForRun(run.run_id, { until: (one) => one['stuck_reason'] === TURN })
  // As long as all of its steps would have taken together.
  await stage.ends(await stage.post(thinks(10, 150)))
  const causes = (await stage.api.get(`/runs/${run.run_id}/diagnosis`)).body.causes
  expect(causes).toMatchObject([{ gate: 'turn.exceeded' }])
  await stage.api.post(`/runs/${run.run_id}/extend`, { by: '1h' })
  expect(await stage.ends(run)).toMatchObject({ status: 'completed' })
})

test('a run that is held at a boundary is cancelled there', async () => {
  const run = await rounds(40, { timeouts: { turn: '600ms' } })
  await stage.api.waitForRun(run.run_id, { until: (one) => one['stuck_reason'] === TURN })
  await stage.api.cancel(run.run_id)
  expect(await stage.ends(run)).toMatchObject({ status: 'cancelled' })
})
