import type { AnyActorRef } from 'xstate'
import type { RunMachine } from '../../../machines/run.ts'
import type { ChildReport } from '../../agents/port.ts'
import type { StartSession } from '../../executors/local/executor.ts'
import type { Json } from '../../json.ts'
import type { CallRow } from '../../store/rows.ts'
import type { Committer } from '../commit/committer.ts'
import type { Lease } from '../lease.ts'
import type { Logger } from '../log.ts'
import type { WatchdogRules } from '../supervision/clocks.ts'
import type { Watched } from '../supervision/watchdog.ts'
import type { Hosted } from './hosted.ts'
import type { ReadSignals } from './signals.ts'

export interface HostOptions {
  /** The root of the node's actor system. */
  root: AnyActorRef
  machine: RunMachine
  committer: Committer
  lease: Lease
  startSession: StartSession
  loadCalls(runId: string): Promise<CallRow[]>
  /** Keeps the result of a run that was ended before it came. */
  keepLate(runId: string, output: Json): void
  /** What became of a delegated run; undefined while it goes on. */
  loadReport: (childRunId: string) => Promise<ChildReport | undefined>
  readSignals: ReadSignals
  /** The run has just come here: what was asked of it before is decided now. */
  onCome(hosted: Hosted): void
  /** The run is parked and left: what came for it meanwhile has not been brought to it. */
  onParked(runId: string): void
  recovery: 'auto' | 'manual'
  maxCrashes: number
  cancelTimeoutMs: number
  /** What the watchdog of this node goes by. */
  watchdog: WatchdogRules
  monotonicMs: () => number
  /** The watchdog looks at a run that is about to go on. */
  lookAt: (run: Watched) => void
  /** The commit of a decision was refused: the run is another node's. */
  onFenced(runId: string, epoch: number | null): void
  log: Logger
}
