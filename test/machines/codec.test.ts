import { expect, test } from 'vitest'
import { runMachine } from '../../machines/run.ts'
import { decodeChart, encodeChart, newChart } from '../../src/runtime/run/codec.ts'

test('a snapshot of another version or of a state that is not in the chart is refused', () => {
  const stored = encodeChart(newChart(runMachine, { delayed: false, hold_lane_on_human: false }))
  expect(() => decodeChart(runMachine, { ...stored, version: 99 })).toThrow(/version 99/)
  expect(() => decodeChart(runMachine, { ...stored, value: 'dreaming' })).toThrow(/dreaming/)
})

test('a snapshot of chart version 2 is read as one that no single call has got stuck', () => {
  const stored = encodeChart(newChart(runMachine, { delayed: false, hold_lane_on_human: false }))
  const {
    stuck_call: _call,
    works_beside: _works,
    ...context
  } = stored.context as object & {
    stuck_call: null
    works_beside: false
  }
  const found = { stuck_reason: 'tool_call.timeout(150s)', stuck_clock: 'tool' }
  const read = decodeChart(runMachine, { ...stored, version: 2, context: { ...context, ...found } })
  expect(encodeChart(read)).toEqual({
    ...stored,
    context: { ...context, ...found, stuck_call: null, works_beside: false },
  })
})

test('a snapshot of chart version 1 is read as one of a run that is not stuck', () => {
  const stored = encodeChart(newChart(runMachine, { delayed: false, hold_lane_on_human: false }))
  const {
    stuck_clock: _clock,
    stuck_reason: _reason,
    stuck_call: _call,
    works_beside: _works,
    ...context
  } = stored.context as object & {
    stuck_clock: null
    stuck_reason: null
    stuck_call: null
    works_beside: false
  }
  const read = decodeChart(runMachine, { ...stored, version: 1, context })
  expect(encodeChart(read)).toEqual(stored)
})
