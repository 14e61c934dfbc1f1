import { afterAll } from 'vitest'
import { api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { scripted } from './setup.ts'

const service = await startService({ databaseUrl: await freshDatabase() })
afterAll(() => service.kill())
export const client = api(service)

export type Steps = Record<string, unknown>[]

export const child = (steps: Steps, more: object = {}) => ({
  agent: 'scripted',
  input: { steps },
  ...more,
})
export const post = (steps: Steps, more: Record<string, unknown> = {}): Promise<Run> =>
  client.createRun(scripted(steps, more))
export const childrenOf = async (run: Run): Promise<Run[]> =>
  (await client.get(`/runs/${run.run_id}/children`)).body.children.toReversed()
export const childOf = async (run: Run): Promise<Run> =>
  eventually(async () => (await childrenOf(run))[0] ?? false)
export const reaches = (run: Run, status: string): Promise<Run> =>
  client.waitForRun(run.run_id, { until: (one) => one.status === status })
export const toldOf = async (run: Run, ...types: string[]) =>
  (await client.events(run.run_id)).filter(({ event_type }) => types.includes(event_type))
export const interrupt = (run: Run, body: object = {}) =>
  client.post(`/api/v1/admin/agent-runtime/subagents/${run.run_id}/interrupt`, body)
