import { describe, expect, test } from 'vitest'
import { nearest } from '../../src/nearest.ts'

describe('the nearest known word', () => {
  test.each([
    ['agnet', 'agent'],
    ['prioritty', 'priority'],
    ['surfcae', 'surface'],
    ['agent', 'agent'],
    ['', undefined],
    ['zzzzzz', undefined],
    ['x'.repeat(1_000_000), undefined],
  ])('of %.12s is %s', (word, expected) => {
    expect(nearest(word, ['agent', 'surface', 'priority'])).toBe(expected)
  })

  test('counts a swap of neighbours as one change', () => {
    expect(nearest('badcfe', ['abcdef', 'xyzcfe'])).toBe(undefined)
    expect(nearest('badcef', ['abcdef'])).toBe('abcdef')
  })
})
