import type { Endpoint } from './endpoint.ts'
import * as admin from './admin.ts'
import * as agents from './agents.ts'
import { bulkRuns } from './bulk.ts'
import * as charts from './charts.ts'
import { cancelAgentRun, getAgentStatus } from './conversations.ts'
import * as runs from './runs.ts'
import * as runtime from './runtime.ts'
import * as service from './service.ts'
import { signal } from './signals.ts'
import * as streams from './streams.ts'

/** Every operation of the contract, in the order of its documents. */
export const ENDPOINTS: readonly Endpoint[] = [
  ...Object.values(runs),
  signal,
  bulkRuns,
  getAgentStatus,
  cancelAgentRun,
  ...Object.values(streams),
  ...Object.values(agents),
  ...Object.values(charts),
  ...Object.values(runtime),
  ...Object.values(admin),
  ...Object.values(service),
]

/** The table of the README. */
export function routeTable(): string {
  const rows = ENDPOINTS.map(
    ({ method, path, role, does }) => `| \`${method} ${path}\` | ${role} | ${does} |`,
  )
  return ['| route | role | |', '| --- | --- | --- |', ...rows, ''].join('\n')
}
