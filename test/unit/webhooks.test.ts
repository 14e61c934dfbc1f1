import { describe, expect, test } from 'vitest'
import { deliveriesOf, noticeType } from '../../src/runtime/run/notices.ts'
import type { RunRecord } from '../../src/store/flush.ts'
import { pauseMs } from '../../src/webhooks/backoff.ts'
import { Places } from '../../src/webhooks/places.ts'

const NOW = Date.parse('2026-11-21T10:00:00Z')
const HOUR_MS = 3_600_000

describe('the pause before the next attempt', () => {
  const at = (random: number) => ({ now: NOW, random })

  test('doubles from a second to an hour, the upper half of it by chance', () => {
    const longest = [1, 2, 3, 4, 12, 13, 14, 100].map((nth) => pauseMs(nth, undefined, at(1)))
    const shortest = [1, 2, 3, 4, 12, 13, 14, 100].map((nth) => pauseMs(nth, undefined, at(0)))

    expect(longest).toEqual([1, 2, 4, 8, 2_048, 3_600, 3_600, 3_600].map((s) => s * 1_000))
    expect(shortest).toEqual(longest.map((ms) => ms / 2))
  })

  test('leaves time for some forty attempts in 24 hours', () => {
    let sum = 0
    let attempts = 1
    for (; sum < 24 * HOUR_MS; attempts += 1) sum += pauseMs(attempts, undefined, at(0.5))
    expect(attempts).toBeGreaterThan(30)
    expect(attempts).toBeLessThan(60)
  })

  test.each([
    ['30', 30_000],
    [' 2 ', 2_000],
    ['Sat, 21 Nov 2026 10:01:00 GMT', 60_000],
    ['0', 500],
    ['-5', 500],
    ['soon', 500],
    ['', 500],
    ['Sat, 21 Nov 2026 09:00:00 GMT', 500],
    ['9'.repeat(30), 24 * HOUR_MS],
  ])('is longer if the receiver asks for it: %j', (retryAfter, ms) => {
    expect(pauseMs(1, retryAfter, at(0))).toBe(ms)
  })
})

describe('places', () => {
  test('are two for a host that nothing is known of, sixteen for one that answers promptly', () => {
    const places = new Places()
    expect(places.freeOf('a')).toBe(2)
    places.take('a')
    places.take('a')
    expect(places.full).toEqual(['a'])
    places.give('a', { ok: true, ms: 100 })
    expect(places.freeOf('a')).toBe(15)
    places.give('a', { ok: true, ms: 100 })
    expect(places.freeOf('a')).toBe(16)
  })

  test.each([
    ['is slow', { ok: true, ms: 2_001 }],
    ['fails', { ok: false, ms: 1 }],
  ])('are two again as soon as it %s', (_what, answer) => {
    const places = new Places()
    for (let nth = 0; nth < 2; nth += 1) places.take('a')
    places.give('a', { ok: true, ms: 1 })
    expect(places.freeOf('a')).toBe(15)
    places.give('a', answer)
    expect(places.freeOf('a')).toBe(2)
  })

  test('are never more than sixty-four in all', () => {
    const places = new Places()
    for (let nth = 0; nth < 32; nth += 1) for (const _of of [1, 2]) places.take(`host-${nth}`)
    expect(places.free).toBe(0)
    expect(places.freeOf('another')).toBe(0)
    places.give('host-0', { ok: false, ms: 1 })
    expect(places.freeOf('another')).toBe(1)
  })
})

describe('a notice', () => {
  test.each([
    ['run_status_changed', { to: 'completed' }, 'runlane.run.completed'],
    ['run_status_changed', { to: 'timed_out' }, 'runlane.run.timed_out'],
    ['run_status_changed', { to: 'waiting_on_human' }, undefined],
    ['run_stuck', {}, 'runlane.run.stuck'],
    ['run_recovered', {}, 'runlane.run.recovered'],
    ['human_asked', {}, 'runlane.run.human_asked'],
    ['watchdog_verdict', {}, 'runlane.run.watchdog_verdict'],
    ['message', { to: 'completed' }, undefined],
  ])('of %s %j is %s', (event_type, payload, type) => {
    expect(noticeType(event_type, payload)).toBe(type)
  })

  test('goes to each of its receivers once', () => {
    const of = (callback_url: string | null, output_size = 0) => ({
      notices: [{ run_id: 'r', sequence: 7, type: 't', callback_url, output_size }],
    })
    const records = [of(null), of('http://c.test:81/x'), of('http://e.test/', 65_537)]
    const sent = (endpoints: string[]) => deliveriesOf(records as RunRecord[], endpoints)

    expect(sent([])).toEqual([
      {
        run_id: 'r',
        sequence: 7,
        type: 't',
        url: 'http://c.test:81/x',
        host: 'c.test:81',
        with_output: true,
      },
      {
        run_id: 'r',
        sequence: 7,
        type: 't',
        url: 'http://e.test/',
        host: 'e.test',
        with_output: false,
      },
    ])
    expect(sent(['http://e.test/']).map(({ url }) => url)).toEqual([
      'http://e.test/',
      'http://c.test:81/x',
      'http://e.test/',
      'http://e.test/',
    ])
  })
})
