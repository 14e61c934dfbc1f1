import { describe, expect, test } from 'vitest'
import { compileSchema } from '../../src/agents/json-schema.ts'

describe('a value', () => {
  const check = compileSchema({
    type: 'object',
    properties: { city: { type: 'string' }, days: { type: 'array', items: { type: 'integer' } } },
    required: ['city'],
    additionalProperties: false,
  })

  test.each([[{ city: 'Oslo' }], [{ city: 'Oslo', days: [] }], [{ city: 'Oslo', days: [1, 2] }]])(
    'that fits is not complained about: %j',
    (value) => {
      expect(check(value)).toBeUndefined()
    },
  )

  test.each([
    [{}, "it must have required property 'city'"],
    [[], 'it must be object'],
    [null, 'it must be object'],
    [{ city: 1 }, 'city must be string'],
    [{ city: 'Oslo', days: [1, 'two'] }, 'days.1 must be integer'],
    [{ city: 'Oslo', more: 1 }, 'it must NOT have additional properties'],
  ])('that does not fit is told where and why: %j', (value, told) => {
    expect(check(value)).toBe(told)
  })

  test('is neither changed nor filled up', () => {
    const value = { n: '1' }
    const withDefault = compileSchema({
      type: 'object',
      properties: { n: { type: ['string', 'number'] }, m: { type: 'number', default: 1 } },
    })
    expect(withDefault(value)).toBeUndefined()
    expect(value).toEqual({ n: '1' })
  })
})

describe('a schema', () => {
  test('is read as draft 2020-12 unless it says that it is older', () => {
    const tuple = { type: 'array', prefixItems: [{ type: 'string' }] }
    expect(compileSchema(tuple)([1])).toBe('0 must be string')
    expect(
      compileSchema({ $schema: 'https://json-schema.org/draft/2020-12/schema', ...tuple })([1]),
    ).toBe('0 must be string')
    const old = {
      $schema: 'http://json-schema.org/draft-07/schema#',
      type: 'array',
      items: [{ type: 'string' }],
    }
    expect(compileSchema(old)([1])).toBe('0 must be string')
    expect(compileSchema({ ...old, ...tuple })([1])).toBe('0 must be string')
  })

  test('may refer to its own definitions, also to itself', () => {
    const check = compileSchema({
      $defs: { node: { type: 'object', properties: { next: { $ref: '#/$defs/node' } } } },
      $ref: '#/$defs/node',
    })
    expect(check({ next: { next: {} } })).toBeUndefined()
    expect(check({ next: { next: 1 } })).toBe('next.next must be object')
  })

  test('may use keywords and formats that nobody knows', () => {
    const check = compileSchema({
      type: 'object',
      'x-hint': 'anything',
      properties: { when: { type: 'string', format: 'tomorrow' } },
    })
    expect(check({ when: 'x' })).toBeUndefined()
  })

  test.each<[string, Record<string, unknown>, RegExp]>([
    ['a type that is none', { type: 'objekt' }, /schema is invalid: schema\/type/],
    [
      'one deep inside',
      { type: 'object', properties: { a: { minimum: 'x' } } },
      /schema\/properties\/a\/minimum must be number/,
    ],
    ['a pattern that does not parse', { type: 'string', pattern: '(' }, /parsing regexp/],
    ['a pattern that looks around', { type: 'string', pattern: '(?=a)' }, /parsing regexp/],
    ['a reference to nothing', { $ref: '#/$defs/none' }, /resolve reference/],
    ['a reference to the outside', { $ref: 'https://example.com/schema.json' }, /resolve ref/],
    ['a reference to the rules of schemas', { $ref: 'http://json-schema.org/schema' }, /resolve/],
    ['$async, which would let everything pass', { $async: true, type: 'object' }, /\$async/],
    [
      '$async inside',
      { type: 'object', properties: { a: { $async: true, type: 'string' } } },
      /async/,
    ],
  ])('with %s is refused', (_name, schema, message) => {
    expect(() => compileSchema(schema as never)).toThrow(message)
  })

  test('of a name that an earlier one had is its own', () => {
    const inner = (type: string) => ({
      $id: 'https://example.com/tool',
      type: 'object',
      properties: { a: { $ref: 'https://example.com/inner' } },
      $defs: { inner: { $id: 'https://example.com/inner', type } },
    })
    expect(compileSchema(inner('string'))({ a: 1 })).toBe('a must be string')
    expect(compileSchema(inner('number'))({ a: 1 })).toBeUndefined()
    expect(() => compileSchema({ $ref: 'https://example.com/inner' })).toThrow(/resolve/)
  })

  test('with a pattern that could take for ever is checked in a moment', () => {
    const check = compileSchema({ type: 'string', pattern: '^(a+)+$' })
    expect(check('aaa')).toBeUndefined()
    // In an engine that backtracks this takes longer than anybody waits.
    expect(check(`${'a'.repeat(1_000)}!`)).toBe('it must match pattern "^(a+)+$"')
  })

  test('has patterns as JavaScript writes them', () => {
    const check = compileSchema({ type: 'string', pattern: '^\\p{L}+ \\d{2,4}\\/\\w*$' })
    expect(check('März 2026/x')).toBeUndefined()
    expect(check('1 2026/x')).toBeDefined()
  })

  test('with a thousand properties is compiled without running out of stack', () => {
    const names = Array.from({ length: 1_500 }, (_, nth) => `p${nth}`)
    const check = compileSchema({
      type: 'object',
      properties: Object.fromEntries(names.map((name) => [name, { type: 'string', minLength: 3 }])),
    })
    expect(check({ p1499: 'no' })).toBe('p1499 must NOT have fewer than 3 characters')
  })
})
