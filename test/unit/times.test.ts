import { describe, expect, it } from 'vitest'
import { rfc3339 } from '../../src/store/database.ts'

describe('times as Postgres writes them', () => {
  const parsed = (text: string): string => new Date(text).toISOString()

  it.each([
    '2026-11-21 15:57:03+00',
    '2026-11-21 15:57:03.1+00',
    '2026-11-21 15:57:03.123999+00',
    '2026-11-21T15:57:03.05+00:00',
    '2026-11-21 15:57:03.123456+02',
    '2026-11-21 00:10:03-09:30',
    '2024-02-29 23:59:59.9999+00',
  ])('%s becomes RFC 3339 in UTC with milliseconds', (text) => {
    expect(rfc3339(text)).toBe(parsed(text))
  })

  it('moves a time of another zone to UTC', () => {
    expect(rfc3339('2026-11-21 01:30:00.25+02')).toBe('2026-11-20T23:30:00.250Z')
  })

  it('refuses what is no time', () => {
    expect(() => rfc3339('infinity')).toThrow(RangeError)
  })
})
