import type { RowClock } from '../../store/rows.ts'
import { laterBy } from '../supervision/row-clock.ts'

/** So far, in milliseconds, may a row be off before it is written again. */
const SLACK_MS = 250

/**
 * What the row of a run says of its clock. Every record takes it along; what moves it without one (its executor begins it, it
 * comes to its next call, this process stood still) makes the row untrue, until the watchdog looks and has it written again.
 */
export class ToldClock {
  #read: (at: number) => RowClock | null
  #monotonicMs: () => number
  /** In a record that is under way. */
  #taken: { clock: RowClock | null; at: number } | null = null
  /** What the row says, and since when about: its time is that of the commit, which comes before its answer. */
  #told: { clock: RowClock | null; at: number; slackMs: number }
  #lagMs = 0

  constructor(read: (at: number) => RowClock | null, monotonicMs: () => number) {
    this.#read = read
    this.#monotonicMs = monotonicMs
    // Whoever had the run before has left nothing.
    this.#told = { clock: null, at: monotonicMs(), slackMs: SLACK_MS }
  }

  /** As it goes into a record. */
  take(): RowClock | null {
    const at = this.#monotonicMs()
    this.#taken = { clock: this.#read(at), at }
    return this.#taken.clock
  }

  /** That record is written. Where the database is slow time and again, nothing is gained by writing it once more. */
  settle(): void {
    if (!this.#taken) return
    const at = this.#monotonicMs()
    const lagMs = at - this.#taken.at
    const slackMs = SLACK_MS + Math.min(lagMs, this.#lagMs)
    this.#told = { clock: this.#taken.clock, at, slackMs }
    this.#lagMs = lagMs
    this.#taken = null
  }

  /** The row is to be written again. */
  get isUntrue(): boolean {
    if (this.#taken) return false
    const { clock, at, slackMs } = this.#told
    const now = this.#monotonicMs()
    const read = this.#read(now)
    if (!read || !clock) return read !== clock
    return differ(read, laterBy(clock, now - at), slackMs)
  }
}

function differ(one: RowClock, other: RowClock, slackMs: number): boolean {
  if (one.reason !== other.reason || one.tool_call_id !== other.tool_call_id) return true
  if (one.stands !== other.stands) return true
  const pairs = [
    [one.limit_ms, other.limit_ms],
    [one.age_ms, other.age_ms],
    [one.left_ms, other.left_ms],
  ] as const
  return pairs.some(([a, b]) => (a === null || b === null ? a !== b : Math.abs(a - b) > slackMs))
}
