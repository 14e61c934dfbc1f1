import { hrtime } from 'node:process'

/**
 * Time inside one process. Dates that are stored come from the database (`runlane.now()`), never from here: this clock
 * only measures how long we believe something, and cannot be set back.
 */
export interface Clock {
  /** Milliseconds of the machine's monotonic clock: the same scale in every thread, and it runs on while a process is stopped. */
  monotonicMs: () => number
  /** Milliseconds since 1970 as this machine believes: for people to read, nothing is decided by it. */
  now: () => number
}

export const systemClock: Clock = {
  monotonicMs: () => Number(hrtime.bigint()) / 1e6,
  now: Date.now,
}
