import type { Context } from 'hono'
import type { RunView } from '../store/runs.ts'
import { findRun } from '../store/runs.ts'
import type { Identity } from './access/identity.ts'
import { existingRun } from './run-of-path.ts'
import type { Service } from './service.ts'

/** The run, as soon as it is as wanted, or when the wait is over. @throws Refusal not_found */
export async function waitForRun(
  service: Service,
  { c, identity: { name }, run_id }: { c: Context; identity: Identity; run_id: string },
  waitMs: number | undefined,
  wanted: (row: RunView) => boolean,
) {
  let run = await existingRun(service, run_id)
  if (waitMs === undefined || wanted(run)) return run
  const ended = AbortSignal.any([AbortSignal.timeout(waitMs), c.req.raw.signal])
  const leave = service.connections.take(name)
  const watch = await service.node.feed.watch(run.run_id).catch((error: unknown) => {
    leave()
    throw error
  })
  try {
    do run = (await findRun(service.reads, run.run_id)) ?? run
    while (!wanted(run) && (await watch.next(ended)))
  } finally {
    watch.close()
    leave()
  }
  return run
}
