import { expect } from 'vitest'
import type { Api, Json, Run, RunEvent } from './api.ts'

const ENDS = /^(completed|failed|cancelled|timed_out)$/

export const isEnd = ({ event_type, payload }: RunEvent): boolean =>
  event_type === 'run_status_changed' && ENDS.test(String(payload.to))

/** What must hold of every run that is over, whatever it was asked: one end, told last, nothing left out before it. */
export const expectEndedOnce = (events: readonly RunEvent[]): RunEvent => {
  expect(events.map(({ sequence }) => sequence)).toEqual(events.map((_, index) => index + 1))
  const ends = events.filter(isEnd)
  expect(ends).toEqual([events.at(-1)])
  return ends[0] as RunEvent
}

/** The run is cancelled, said so once and last. Answers its events. */
export const expectCancelledOnce = async (
  { waitForRun, events }: Pick<Api, 'waitForRun' | 'events'>,
  runId: string,
): Promise<RunEvent[]> => {
  const run = await waitForRun(runId)
  expect(run).toMatchObject({
    status: 'cancelled',
    // What it waited for before is not why it has ended.
    detail: null,
    cancel_requested: true,
    output: null,
    node_id: null,
    metadata: { resume_available: false },
  })
  const all = await events(runId)
  expect(expectEndedOnce(all).payload.to).toBe('cancelled')
  return all
}

/** A run held its lane until the end of the one before it: that end comes before anything of its own attempt. */
export const expectStartedAfter = async (
  { waitForRun, events }: Pick<Api, 'waitForRun' | 'events'>,
  next: Run,
  end: RunEvent,
): Promise<void> => {
  expect((await waitForRun(next.run_id)).status).toBe('completed')
  const started = (await events(next.run_id)).find(isStart)
  expect(started?.id).toBeGreaterThan(end.id)
}

const isStart = ({ event_type }: RunEvent): boolean => event_type === 'lease_acquired'

/** Tool calls of a run as recorded, whole. */
export const toolResultsOf = async ({ get }: Pick<Api, 'get'>, runId: string): Promise<Json[]> =>
  (await get(`/runs/${runId}/tool-results?limit=1000`)).body.tool_results
