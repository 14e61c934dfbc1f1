import type { Context } from 'hono'
import { Refusal } from '../errors.ts'
import type { RunView } from '../store/runs.ts'
import { findRun } from '../store/runs.ts'
import type { Identity } from './access/identity.ts'
import { existingRun } from './run-of-path.ts'
import type { Service } from './service.ts'

/**
 * The run, as soon as it is as wanted, or when the wait is over.
 * @throws Refusal not_found; unauthorized when the caller may not come in any more
 */
export async function waitForRun(
  service: Service,
  { c, identity: { name }, run_id }: { c: Context; identity: Identity; run_id: string },
  waitMs: number | undefined,
  wanted: (row: RunView) => boolean | Promise<boolean>,
) {
  let run = await existingRun(service, run_id)
  if (waitMs === undefined || (await wanted(run))) return run
  const leave = service.connections.take(name)
  const watch = await service.node.feed.watch(run.run_id).catch((error: unknown) => {
    leave()
    throw error
  })
  const vigil = service.access.vigil(c)
  const ended = AbortSignal.any([AbortSignal.timeout(waitMs), c.req.raw.signal, vigil.lost])
  try {
    do run = (await findRun(service.reads, run.run_id)) ?? run
    while (!(await wanted(run)) && (await watch.next(ended)))
  } finally {
    vigil.end()
    watch.close()
    leave()
  }
  if (vigil.lost.aborted)
    throw new Refusal('unauthorized', 'the token was revoked, or has expired, during the wait')
  return run
}
