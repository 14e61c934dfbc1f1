import { RunlaneError, type Run } from '../client/index.ts'
import { formatDuration } from '../duration.ts'
import { EXIT } from './io.ts'
import { nextStep } from './next.ts'
import type { Context } from './context.ts'
import { runText } from './show.ts'

/** Waits for a run and shows it when it is over, or as it is when the time is up. */
export async function waitAndShow(
  { client, io, print, warn }: Context,
  { run_id }: Run,
  wait: number | true,
  wanted: 'completed' | 'over',
): Promise<number> {
  const signal = io.ended
  const timeoutMs = wait === true ? undefined : wait
  const run = await client.wait(run_id, { timeoutMs, signal }).catch((error: unknown) => {
    if (signal.aborted) warn({ code: 'interrupted', detail: `${run_id} goes on`, run_id })
    if (!(error instanceof RunlaneError) || error.code !== 'wait_timeout') throw error
    return client.getRun(run_id, { signal })
  })
  await print(run, () => runText(run))
  const isOver = run.ended_at !== null
  if (!isOver && wait !== true) warn(notOver(run, wait))
  return (wanted === 'over' ? isOver : run.status === 'completed') ? EXIT.ok : EXIT.notCompleted
}

/** What was seen last, and what can be done about it. */
function notOver(run: Run, waitMs: number) {
  const { run_id, status, stuck_reason } = run
  const stuck = stuck_reason === null ? '' : `, stuck: ${stuck_reason}`
  const detail = `${run_id} did not end within ${formatDuration(waitMs)}: it is ${status}${stuck}`
  const next = [nextStep(run), `runlane run why ${run_id}`].find((one) => one !== null)
  return { code: 'wait_timeout', detail, run_id, run_status: status, stuck_reason, next }
}
