import { describe, expect, test } from 'vitest'
import { checkedResult, cleanText, toJson } from '../../src/agents/values.ts'
import { messageOf } from '../../src/errors.ts'

describe('a result', () => {
  test.each([
    [undefined, null, 4],
    [null, null, 4],
    ['é', 'é', 4],
    [{ a: undefined, b: 1 }, { b: 1 }, 7],
    [new Date(0), '1970-01-01T00:00:00.000Z', 26],
    [[{ toJSON: () => 'shown' }], ['shown'], 9],
    [Object.create(null), {}, 2],
  ])('%j is kept as JSON, with its size in bytes', (value, json, size) => {
    expect(toJson(value)).toEqual({ value: json, size })
  })

  /** Two ways round: 2^64 of them up to the greatest depth, were they all walked. */
  const circle: unknown[] = []
  circle.push(circle, circle)

  test.each([
    ['a bigint', { n: 1n }, 'the result is not JSON: the result.n is a bigint'],
    ['a function', [() => 1], 'the result is not JSON: the result[0] is a function'],
    ['a symbol', Symbol('x'), 'the result is not JSON: the result is a symbol'],
    ['NaN', { a: [Number.NaN] }, 'the result is not JSON: the result.a[0] is NaN'],
    ['a Map', new Map(), 'the result is not JSON: the result is a Map'],
    ['a Set', { s: new Set() }, 'the result is not JSON: the result.s is a Set'],
    [
      'a promise',
      { later: Promise.resolve(1) },
      'the result is not JSON: the result.later is a Promise',
    ],
    ['an error', new Error('x'), 'the result is not JSON: the result is a Error'],
    ['a circle', circle, 'the result is not JSON: Converting circular structure'],
    ['a NUL', { a: '\0' }, 'result.a contains a NUL character'],
    ['half a character', ['\uD800'], 'result[0] contains a lone surrogate'],
    ['a NUL in a key', { '\0': 1 }, 'result.\\u0000 contains a NUL character'],
  ])('that is %s is refused, with the place', (_, value, message) => {
    expect(() => toJson(value)).toThrow(expect.objectContaining({ code: 'invalid_result' }))
    expect(() => toJson(value)).toThrow(message)
  })

  test('of what throws when it is read says what was thrown', () => {
    const failing = {
      get value() {
        throw new Error('not now')
      },
    }
    expect(() => toJson(failing)).toThrow('the result is not JSON: not now')
  })

  test('a text of an escape, not a NUL, is kept', () => {
    expect(toJson('\\u0000').value).toBe('\\u0000')
  })

  test('may have a million bytes and no more', () => {
    expect(checkedResult('x'.repeat(999_998)).size).toBe(1_000_000)
    expect(() => checkedResult('x'.repeat(999_999))).toThrow(
      expect.objectContaining({ code: 'output_too_large' }),
    )
    // Bytes, not characters.
    expect(() => checkedResult('é'.repeat(500_000))).toThrow('1000000 bytes')
  })
})

test('the text of servers and models is made storable, keys and all', () => {
  expect(cleanText({ 'a\0': ['\uD800', 1, null] })).toEqual({ 'a\uFFFD': ['\uFFFD', 1, null] })
})

test.each([
  [new Error('plain'), 'plain'],
  ['a text', 'a text'],
  [undefined, 'undefined was thrown'],
  [null, 'null was thrown'],
  [7, '7 was thrown'],
  [Object.create(null), 'something without a text was thrown'],
  [Object.assign(new Error(), { message: 7 }), '7'],
  [new Error('a\0b\uD800'), 'a\uFFFDb\uFFFD'],
])('whatever is thrown has a text that can be stored', (thrown, message) => {
  expect(messageOf(thrown)).toBe(message)
})
