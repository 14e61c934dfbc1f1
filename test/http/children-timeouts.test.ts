import { expect, test } from 'vitest'
import { serve, expectProblem, scripted } from './setup.ts'

/** A service that is quick to find a tool call too slow, and to end its run for that. */
const { createRun, waitForRun, get, post, events } = await serve('postgres', {
  env: {
    RUNLANE_WATCHDOG_TOOL: '500ms',
    RUNLANE_WATCHDOG_INTERVAL: '100ms',
    RUNLANE_AUTO_TERMINATE: '300ms',
  },
})

const slow = { tool: 'slow', ms: 2_000, result: 'done' }
const child = (steps: object[], more: object = {}) => ({
  delegate: { agent: 'scripted', input: { steps }, ...more },
})
const patient = { timeouts: { tool: '60s' }, execution_timeout_override: '10m' }

/** How the only child of a run has ended, and whether it was ever found stuck. */
async function endOfChild(steps: object[], more: Record<string, unknown> = {}) {
  const run = await createRun(scripted(steps, more))
  const root = await waitForRun(run.run_id)
  const { body } = await get(`/runs/${run.run_id}/children`)
  const [only] = body.children
  const told = (await events(only.run_id)).map(({ event_type }) => event_type)
  return { root, child: only, isFlagged: told.includes('run_stuck') }
}

test('a delegated run has the time that the run above it was given, however deep it is', async () => {
  const { root } = await endOfChild([child([child([slow])])], patient)
  expect(root).toMatchObject({
    status: 'completed',
    output: {
      results: [{ status: 'completed', output: { results: [{ output: { results: ['done'] } }] } }],
    },
  })
})

test('and where nobody gave it more time it is ended', async () => {
  const { child: ended } = await endOfChild([child([slow])])
  expect(ended).toMatchObject({ status: 'failed', error_code: 'auto_terminated' })
})

test('how long it may be stuck is inherited as well', async () => {
  const override = { execution_timeout_override: '10m' }
  const { child: ended, isFlagged } = await endOfChild([child([slow])], override)
  expect(ended).toMatchObject({ status: 'completed' })
  expect(isFlagged).toBe(true)
})

test('less time is meant for the work of the run alone that was given it', async () => {
  const hasty = { timeouts: { tool: '100ms', turn: '200ms' }, execution_timeout_override: '100ms' }
  const brief = { tool: 'brief', ms: 400 }
  const { root, child: ended, isFlagged } = await endOfChild([child([brief])], hasty)
  expect(root).toMatchObject({ status: 'completed' })
  expect(ended).toMatchObject({ status: 'completed' })
  expect(isFlagged).toBe(false)
})

test('limits of a delegation go before inherited ones, each for itself', async () => {
  const given = { timeouts: { tool: '100ms' } }
  const { child: ended } = await endOfChild([child([slow], given)], {
    timeouts: { tool: '60s', turn: '60s' },
    execution_timeout_override: '10m',
  })
  expect(ended).toMatchObject({ status: 'completed' })
  const stuck = (await events(ended.run_id)).filter(({ event_type }) => event_type === 'run_stuck')
  expect(stuck.map(({ payload }) => payload.stuck_reason)).toEqual(['tool_call.timeout(100ms)'])
})

test('a limit that is none is refused with its path', async () => {
  const steps = [child([], { timeouts: { tool: 'soon', tol: '1s' } })]
  expectProblem(await post('/runs', scripted(steps)), {
    status: 422,
    code: 'validation_error',
    paths: ['input.steps[0].delegate.timeouts.tool', 'input.steps[0].delegate.timeouts.tol'],
  })
})
