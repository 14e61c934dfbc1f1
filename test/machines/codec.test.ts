import { expect, test } from 'vitest'
import { runMachine } from '../../machines/run.ts'
import { decodeChart, encodeChart, newChart } from '../../src/runtime/run/codec.ts'

test('a snapshot of another version or of a state that is not in the chart is refused', () => {
  const stored = encodeChart(newChart(runMachine, { delayed: false, hold_lane_on_human: false }))
  expect(() => decodeChart(runMachine, { ...stored, version: 99 })).toThrow(/version 99/)
  expect(() => decodeChart(runMachine, { ...stored, value: 'dreaming' })).toThrow(/dreaming/)
})

test('a snapshot of chart version 1 is read as one of a run that is not stuck', () => {
  const stored = encodeChart(newChart(runMachine, { delayed: false, hold_lane_on_human: false }))
  const {
    stuck_clock: _clock,
    stuck_reason: _reason,
    ...context
  } = stored.context as object & {
    stuck_clock: null
    stuck_reason: null
  }
  const read = decodeChart(runMachine, { ...stored, version: 1, context })
  expect(encodeChart(read)).toEqual(stored)
})
