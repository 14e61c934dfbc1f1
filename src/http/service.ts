import type { AgentDirectory } from '../agents/directory.ts'
import type { Outbound } from '../agents/outbound.ts'
import type { Logger } from '../runtime/log.ts'
import type { RunlaneNode } from '../runtime/node.ts'
import type { Sql } from '../store/database.ts'
import type { Access } from './access/access.ts'
import type { ConnectionLimit } from './access/limits.ts'

/** What the routes work with. */
export interface Service {
  node: RunlaneNode
  reads: Sql
  snapshots: Sql
  agents: AgentDirectory
  outbound: Outbound
  /** Notices can be signed, so runs may have a `callback_url`. */
  signsWebhooks: boolean
  access: Access
  metrics: { scrape(): Promise<string> }
  /** Streams and waits that callers hold open. */
  connections: ConnectionLimit
  bodyLimitBytes: number
  sseHeartbeatMs: number
  version: string
  log: Logger
}
