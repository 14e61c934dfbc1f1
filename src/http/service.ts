import type { AgentDirectory } from '../agents/directory.ts'
import type { Outbound } from '../agents/outbound.ts'
import type { Logger } from '../runtime/log.ts'
import type { RunlaneNode } from '../runtime/node.ts'
import type { Sql } from '../store/database.ts'
import type { Authenticate } from './auth.ts'

/** What the routes work with. */
export interface Service {
  node: RunlaneNode
  reads: Sql
  agents: AgentDirectory
  outbound: Outbound
  authenticate: Authenticate
  bodyLimitBytes: number
  sseHeartbeatMs: number
  version: string
  log: Logger
}
