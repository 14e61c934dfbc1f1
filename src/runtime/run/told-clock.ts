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
  /** What the row says, and since when: from its commit on, which came after it was taken and before the answer. */
  #told: { clock: RowClock | null; takenAt: number; answeredAt: number; slackMs: number }
  #lagMs = 0

  constructor(read: (at: number) => RowClock | null, monotonicMs: () => number) {
    this.#read = read
    this.#monotonicMs = monotonicMs
    // Whoever had the run before has left nothing.
    const at = monotonicMs()
    this.#told = { clock: null, takenAt: at, answeredAt: at, slackMs: SLACK_MS }
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
    const answeredAt = this.#monotonicMs()
    const { clock, at: takenAt } = this.#taken
    const lagMs = answeredAt - takenAt
    const slackMs = SLACK_MS + Math.min(lagMs, this.#lagMs)
    this.#told = { clock, takenAt, answeredAt, slackMs }
    this.#lagMs = lagMs
    this.#taken = null
  }

  /**
   * The row is to be written again. It has to be true whenever it was committed: where this process stood still after it
   * was taken, the answer came so much later, and measured from that alone the time that was forgiven would not show.
   */
  get isUntrue(): boolean {
    if (this.#taken) return false
    const { clock, takenAt, answeredAt, slackMs } = this.#told
    const now = this.#monotonicMs()
    const read = this.#read(now)
    if (!read || !clock) return read !== clock
    return (
      differ(read, laterBy(clock, now - takenAt), SLACK_MS) ||
      differ(read, laterBy(clock, now - answeredAt), slackMs)
    )
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
