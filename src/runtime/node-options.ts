import type { RunMachine } from '../../machines/run.ts'
import type { Clock } from '../clock.ts'
import type { NodeFacts } from '../executors/local/compose.ts'
import type { StartSession } from '../executors/local/executor.ts'
import type { Database } from '../store/database.ts'
import type { Logger } from './log.ts'
import type { SupervisionOptions } from './supervision/supervision.ts'

type Supervised =
  | 'watchdog'
  | 'reconcileIntervalMs'
  | 'heartbeatTimeoutMs'
  | 'queueTimeoutMs'
  | 'orphanGraceMs'

export interface NodeOptions extends Pick<SupervisionOptions, Supervised> {
  database: Database
  /** The directory lock of the embedded database proves every other node dead. */
  alone: boolean
  executor: (facts: NodeFacts) => StartSession
  nodeId: string
  version: string
  leaseMs: number
  concurrency: number
  recovery: 'auto' | 'manual'
  maxCrashes: number
  cancelTimeoutMs: number
  /** Runs that ended so long ago are deleted; null: never. */
  retentionMs: number | null
  /** URLs that get the notices of all runs, and what is told that there are notices to deliver. */
  webhooks?: { endpoints: readonly string[]; look: () => void }
  clock: Clock
  log: Logger
  /** Another chart than the one of this code: tests plant mutants. */
  machine?: RunMachine
}
