import type { Context } from 'hono'
import { Refusal } from '../errors.ts'
import { JSON_KEY_LENGTH_MAX } from '../json.ts'
import { findRun } from '../store/runs.ts'
import type { Service } from './service.ts'

/** The run of the path. @throws Refusal not_found */
export const existing = (service: Service, c: Context) =>
  existingRun(service, c.req.param('run_id') ?? '')

/** @throws Refusal not_found */
export async function existingRun(service: Service, runId: string) {
  const run = await findRun(service.reads, runId.slice(0, JSON_KEY_LENGTH_MAX))
  if (!run) throw new Refusal('not_found', `there is no run ${runId.slice(0, 64)}`)
  return run
}
