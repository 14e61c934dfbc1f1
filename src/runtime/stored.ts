import type { Sql } from '../store/database.ts'
import { openDelegations } from '../store/delegations.ts'
import {
  findCommand,
  findKeyedCommand,
  inboxOf,
  listWaitpoints,
  loadCalls,
  loadHosted,
} from '../store/runs.ts'

/** What the parts of a node read of single runs, over the connections that no list of a caller delays. */
export const storedRuns = (sql: Sql) => ({
  loadRun: (runId: string) => loadHosted(sql, runId),
  loadCalls: (runId: string) => loadCalls(sql, runId),
  loadWaitpoints: (runId: string) => listWaitpoints(sql, runId),
  inboxOf: (runId: string) => inboxOf(sql, runId),
  openDelegations: (runId: string) => openDelegations(sql, runId),
  findCommand: (commandId: string) => findCommand(sql, commandId),
  findKeyedCommand: (name: string, key: string) => findKeyedCommand(sql, name, key),
})
