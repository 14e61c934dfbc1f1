import type { Timeouts } from '../../agents/agent.ts'

/** A running attempt as its host sees it. How it ended comes as a message through its port. */
export interface Session {
  /** Milliseconds since its executor has shown a sign of life; 0 where nothing can block it. */
  readonly silentMs: number
  /** What the agent says of the watchdog's clocks. */
  readonly timeouts: Timeouts
  /** Asks it to end at its next boundary: a cancel. Idempotent. */
  cancel(): void
  /** Asks it to stop at its next boundary, to go on elsewhere: the node is draining. */
  drain(): void
  /** Ends it now; nothing that it sends afterwards counts. */
  kill(): void
}
