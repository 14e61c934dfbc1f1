import { expect, test } from 'vitest'
import { lossOf, serveIsolation } from './isolation-setup.ts'

const isolation = await serveIsolation({ RUNLANE_MAX_CRASHES: '2' })
const { beside, waitForRun, cancel } = isolation

test.each(['eats_memory', 'eats_memory_at_once', 'eats_buffers'])(
  '%s: its thread ends, not the service, and the run asks a human after two attempts',
  async (deed) => {
    const run = await beside(
      { deed, in: 'tool' },
      {
        costsThread: true,
        follow: (runId) =>
          waitForRun(runId, { until: ({ status }) => status === 'waiting_on_human' }),
      },
    )
    expect([run.detail, run.attempt]).toEqual(['crash_loop', 2])
    expect(await lossOf(isolation, run)).toBe('the executor thread used more than 512 MB of memory')
    expect((await cancel(run.run_id)).status).toBe(202)
  },
  60_000,
)
