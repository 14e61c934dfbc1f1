import type { Timeouts } from '../../agents/agent.ts'
import type { OnOrphan } from '../../agents/on-orphan.ts'
import type { SessionMessage } from '../../agents/port.ts'

/** `unknown`: its executor shows no sign of life at present, which says nothing about the run. */
export type Probe = 'alive' | 'absent' | 'unknown'

/** A running attempt as its host sees it. How it ended comes as a message through its port. */
export interface Session {
  /** Milliseconds since its executor has shown a sign of life; 0 where nothing can block it. */
  readonly silentMs: number
  /**
   * Whether its executor knows it, by the executor's own registry and pulse: the code in it, which may be blocked, is not
   * asked. One that still waits for its executor is alive; `absent` is only what has come to its end.
   */
  probe(): Probe
  /** How it ended, if its executor still knows: for a host that was not told. */
  result(): Promise<SessionMessage | null>
  /** What the agent says of the watchdog's clocks. */
  readonly timeouts: Timeouts
  /** What the agent says of runs that nobody reads. */
  readonly onOrphan: OnOrphan
  /** Asks it to end at its next boundary: a cancel. Idempotent. */
  cancel(): void
  /** Asks it to stop at its next boundary, to go on elsewhere: the node is draining. */
  drain(): void
  /** Ends it now; nothing that it sends afterwards counts. */
  kill(): void
}
