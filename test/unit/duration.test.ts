import fc from 'fast-check'
import { describe, expect, test } from 'vitest'
import { formatDuration, parseDuration } from '../../src/duration.ts'

describe('a duration', () => {
  test.each([
    ['250ms', 250],
    ['1.5h', 5_400_000],
    ['1.1s', 1_100],
    ['3650d', 315_360_000_000],
  ])('reads %s', (text, ms) => {
    expect(parseDuration(text)).toBe(ms)
  })

  test.each([
    '',
    's',
    '5',
    '0s',
    '0.0001ms',
    '0.5ms',
    '-5s',
    '1e3s',
    '5 s',
    '5S',
    '5w',
    '3651d',
    '.5s',
  ])('refuses %j', (text) => {
    expect(() => parseDuration(text)).toThrow(TypeError)
  })

  test.each([
    [0, '0s'],
    [1_500, '1500ms'],
    [30_000, '30s'],
    [600_000, '600s'],
    [3_600_000, '1h'],
    [5_400_000, '90m'],
    [2_592_000_000, '30d'],
  ])('shows %d ms as %s', (ms, text) => {
    expect(formatDuration(ms)).toBe(text)
  })

  test('is read back as it was shown', () => {
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 315_360_000_000 }), (ms) => {
        expect(parseDuration(formatDuration(ms))).toBe(ms)
      }),
    )
  })
})
