import { expect, test } from 'vitest'
import { ToldClock } from '../../src/runtime/run/told-clock.ts'

const LIMIT_MS = 60_000

/** What a row says of a clock of a run that does not move, in a process whose time passes by hand. */
class Told {
  #now = 0
  #since = 0
  readonly clock = new ToldClock(
    (at) => ({
      reason: 'reasoning.no_progress(1m)',
      tool_call_id: null,
      limit_ms: LIMIT_MS,
      age_ms: at - this.#since,
      left_ms: this.#since + LIMIT_MS - at,
      stands: false,
    }),
    () => this.#now,
  )

  /** A record is on its way for so long; for a part of that the process stands still, which is forgiven. */
  record(lagMs: number, stoodStillMs = 0): boolean {
    this.clock.take()
    this.#now += lagMs
    this.#since += stoodStillMs
    this.clock.settle()
    return this.clock.isUntrue
  }
}

test('a row is written again whose record was on its way while the process stood still', () => {
  const told = new Told()
  expect(told.record(20)).toBe(false)
  // In the row since before: by that the run has been silent for all that time.
  expect(told.record(5_020, 5_000)).toBe(true)
  expect(told.record(5_020, 5_000), 'and once more').toBe(true)
  expect(told.record(20)).toBe(false)
})

test('a row is written again after one slow commit, not after each where all are slow', () => {
  const told = new Told()
  expect(told.record(20)).toBe(false)
  expect(told.record(5_000)).toBe(true)
  expect(told.record(5_000)).toBe(false)
  expect(told.record(20)).toBe(false)
})
