import { describe, expect, test } from 'vitest'
import { Vitals } from '../../src/runtime/run/vitals.ts'
import { callOf } from '../support/run-messages.ts'

/** An attempt that has begun at 1,000. */
function begun(): Vitals {
  const vitals = new Vitals(0)
  vitals.open(500)
  vitals.begin(1_000)
  return vitals
}
const started = (nth: number, timeout_ms: number | null = null) =>
  ({ type: 'tool.started', call: callOf(nth), timeout_ms }) as const

describe('the turn', () => {
  test('begins with the session, not with the attempt', () => {
    const vitals = new Vitals(0)
    vitals.open(500)
    expect(vitals).toMatchObject({ begun: false, activeSince: 500 })
    vitals.begin(1_000)
    expect(vitals).toMatchObject({ begun: true, activeSince: 500, turnSince: 1_000 })
  })

  test('stands still while the run waits for children alone, however often it is looked at', () => {
    const vitals = begun()
    vitals.look('waiting_on_child', 2_000)
    vitals.look('waiting_on_child', 2_500)
    vitals.look('waiting_on_child', 12_000)
    expect(12_000 - vitals.turnSince).toBe(1_000)
    vitals.look('waiting_on_tool', 13_000)
    vitals.look('running', 20_000)
    expect(20_000 - vitals.turnSince).toBe(8_000)
  })

  test('and so does how long the run is stuck, but for its executor', () => {
    const of = (clock: 'turn' | 'executor') => {
      const vitals = begun()
      vitals.stuck = { at: 2_000, clock, judged: false }
      vitals.look('waiting_on_child', 3_000)
      vitals.look('running', 10_000)
      return vitals.stuck.at
    }
    expect(of('turn')).toBe(9_000)
    expect(of('executor')).toBe(2_000)
  })

  test('leaves out what the process stood still, once', () => {
    const vitals = begun()
    vitals.look('running', 2_000)
    vitals.forgive(500)
    expect(vitals).toMatchObject({ turnSince: 1_500, movedAt: 1_500 })
    vitals.look('waiting_on_child', 2_000)
    vitals.look('waiting_on_child', 62_000)
    vitals.forgive(60_000)
    expect(vitals.turnSince).toBe(61_500)
  })
})

describe('an extension', () => {
  const over = ({ turnSince, turnLimitFrom }: Vitals, limit: number, extraMs: number): number =>
    Math.max(turnSince + limit, turnLimitFrom) + extraMs

  test.each([
    ['before the limit', 1_500, 8_000],
    ['after it', 9_000, 14_000],
  ])('%s adds to what is left', (_when, at, deadline) => {
    const vitals = begun()
    vitals.extend(0, 'running', at)
    expect(over(vitals, 2_000, 5_000)).toBe(deadline)
  })

  test('adds to those before it', () => {
    const vitals = begun()
    vitals.extend(0, 'running', 9_000)
    vitals.extend(5_000, 'running', 10_000)
    expect(over(vitals, 2_000, 5_000 + 1_000)).toBe(15_000)
    vitals.extend(6_000, 'running', 20_000)
    expect(over(vitals, 2_000, 6_000 + 1_000)).toBe(21_000)
  })

  test('is of the attempt: the next one has its time and what was added', () => {
    const vitals = begun()
    vitals.extend(0, 'running', 9_000)
    vitals.open(10_000)
    vitals.begin(10_000)
    expect(over(vitals, 2_000, 5_000)).toBe(17_000)
  })
})

test('each call has its own progress, and its own time', () => {
  const vitals = begun()
  vitals.note(started(1), 'waiting_on_tool', 2_000)
  vitals.note(started(2, 60_000), 'waiting_on_tool', 3_000)
  const progress = { type: 'progress.reported', tool_call_id: 'tool_1' } as const
  vitals.note(progress, 'waiting_on_tool', 4_000)
  expect(vitals.calls).toEqual([
    { tool_call_id: 'tool_1', movedAt: 4_000, timeout_ms: null },
    { tool_call_id: 'tool_2', movedAt: 3_000, timeout_ms: 60_000 },
  ])
  vitals.note({ type: 'tool.finished', call: callOf(1) }, 'waiting_on_tool', 5_000)
  expect(vitals.calls.map(({ tool_call_id }) => tool_call_id)).toEqual(['tool_2'])
  vitals.close()
  expect(vitals).toMatchObject({ begun: false, calls: [] })
})
