import type { Context } from 'hono'
import { z } from 'zod'
import { readDuration } from '../duration.ts'
import { Refusal } from '../errors.ts'
import type { RunView } from '../store/runs.ts'
import { findRun } from '../store/runs.ts'
import { existing } from './run-of-path.ts'
import type { Service } from './service.ts'

const WAIT_MS_MAX = 5 * 60_000
const WAITING_MAX = 2_000
let waiting = 0

/** `?wait=30s`: at most five minutes. */
export const waitQuery = z
  .string()
  .transform((text, context) =>
    readDuration(text, { addIssue: (message) => context.addIssue(message) }, { most: WAIT_MS_MAX }),
  )
  .optional()

/** The run of the path, as soon as it is as wanted, or when the wait is over. @throws Refusal not_found */
export async function waitForRun(
  service: Service,
  c: Context,
  waitMs: number | undefined,
  wanted: (row: RunView) => boolean,
) {
  let run = await existing(service, c)
  if (waitMs === undefined || wanted(run)) return run
  const ended = AbortSignal.any([AbortSignal.timeout(waitMs), c.req.raw.signal])
  if (waiting >= WAITING_MAX)
    throw new Refusal('too_many_streams', `${WAITING_MAX} callers wait on this node already`)
  waiting += 1
  const watch = await service.node.feed.watch(run.run_id)
  try {
    do run = (await findRun(service.reads, run.run_id)) ?? run
    while (!wanted(run) && (await watch.next(ended)))
  } finally {
    watch.close()
    waiting -= 1
  }
  return run
}
