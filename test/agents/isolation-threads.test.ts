import { expect, test } from 'vitest'
import type { Run } from '../support/api.ts'
import { lossOf, type Isolation, serveIsolation } from './isolation-setup.ts'

/** Waits until the run is on this attempt, cancels it and answers it as cancelled: its code does not end by itself. */
const cancelledOn =
  ({ waitForRun, cancel }: Isolation, wanted: number) =>
  async (runId: string): Promise<Run> => {
    await waitForRun(runId, {
      until: ({ attempt, status }) => attempt === wanted && status === 'waiting_on_tool',
    })
    expect((await cancel(runId)).status).toBe(202)
    return waitForRun(runId)
  }

const attemptsOf = (runs: readonly Run[]): number[] => runs.map(({ attempt }) => attempt)

const isolation = await serveIsolation({
  RUNLANE_WATCHDOG_EXECUTOR: '1s',
  RUNLANE_CANCEL_TIMEOUT: '1s',
})
const { beside, createRun, waitForRun } = isolation

test.each(['loops', 'backtracks', 'blocks_outside_of_javascript'])(
  '%s in a shared thread: the runs beside it go on in threads of their own, and a cancel ends it',
  async (deed) => {
    const run = await beside(
      { deed, in: 'tool' },
      { costsThread: true, follow: cancelledOn(isolation, 2) },
    )
    expect(run.status).toBe('cancelled')
    const resumed = run.beside.coded.filter(({ attempt }) => attempt === 2)
    expect(resumed.length).toBeGreaterThan(0)
    const [first] = resumed
    if (first)
      expect(await lossOf(isolation, first)).toBe('the executor thread was unresponsive for 1s')
  },
)

test.each(['loops', 'blocks_outside_of_javascript'])(
  '%s in a thread of its own harms nobody, and a cancel ends it',
  async (deed) => {
    const run = await beside(
      { agent: 'loner', deed, in: 'tool' },
      { follow: cancelledOn(isolation, 1) },
    )
    expect([run.status, run.attempt]).toEqual(['cancelled', 1])
    expect(attemptsOf(run.beside.coded)).toEqual(run.beside.coded.map(() => 1))
  },
)

test.each(['never_ends', 'beats_without_pause', 'prints_without_pause'])(
  '%s harms nobody',
  async (deed) => {
    const follow = deed === 'never_ends' ? cancelledOn(isolation, 1) : waitForRun
    const run = await beside({ deed, in: 'tool' }, { follow })
    expect(run.attempt).toBe(1)
    expect(run.status).toBe(deed === 'never_ends' ? 'cancelled' : 'completed')
  },
)

test('a tool that ignores its time-out has failed all the same', async () => {
  const { run_id } = await createRun({ agent: 'stubborn' })
  expect(await waitForRun(run_id)).toMatchObject({
    status: 'failed',
    attempt: 1,
    error_code: 'tool_failed',
    error_message: 'timed out after 200ms',
  })
})
