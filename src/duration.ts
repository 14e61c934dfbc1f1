import { z } from 'zod'

/** Largest first: `formatDuration` takes the first that divides. */
const units = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1_000],
  ['ms', 1],
] as const

const MAX_DAYS = 3_650

/**
 * Reads a duration such as `"250ms"`, `"30s"`, `"1.5h"` or `"30d"` as whole milliseconds.
 *
 * A positive decimal number with a unit (`ms`, `s`, `m`, `h`, `d`; a day is 24 hours), nothing
 * between or around them, from 1 ms to 10 years (3650 d).
 *
 * @throws {TypeError} saying what is wrong. The message does not repeat the text, so that callers
 *   can add it, or the field it came from.
 */
export const parseDuration = (text: string): number => {
  const [, amount, suffix] = /^(\d+(?:\.\d+)?)([a-zA-Z]*)$/.exec(text) ?? []
  if (amount === undefined) {
    throw new TypeError('must be a positive number with a unit, such as "30s", "5m" or "250ms"')
  }
  if (suffix === '') throw new TypeError('needs a unit: ms, s, m, h or d, such as "30s"')
  const unit = units.find(([name]) => name === suffix)
  if (unit === undefined) throw new TypeError('has an unknown unit; use ms, s, m, h or d')

  const exact = Number(amount) * unit[1]
  if (exact === 0) throw new TypeError('must be longer than zero')
  if (exact > MAX_DAYS * 86_400_000) throw new TypeError(`must be at most ${MAX_DAYS}d (10 years)`)
  const ms = Math.round(exact)
  // Binary fractions err by less than 0.0001 ms in this range ("1.1s" is 1100.0000000000002).
  if (ms === 0 || Math.abs(exact - ms) > 0.001) {
    throw new TypeError('must be a whole number of milliseconds')
  }
  return ms
}

/**
 * Shows milliseconds exactly, in the one unit that reads best. Below an hour that is seconds (the
 * way clocks are told: 600000 is `"600s"`), from an hour on the largest unit that divides evenly
 * (`"1h"`, `"90m"`, `"30d"`), and milliseconds where nothing larger divides (1500 is `"1500ms"`).
 *
 * `parseDuration` reads every whole positive value of its range back unchanged.
 */
export const formatDuration = (ms: number): string => {
  const usable = Math.abs(ms) < 3_600_000 ? units.slice(-2) : units
  const [unit, size] = usable.find(([, length]) => ms % length === 0) ?? ['ms', 1]
  return `${ms / size}${unit}`
}

// Node fires a timer longer than 2147483647 ms (24.8 days) at once, so no setting that may end up
// in one exceeds 24 days. Longer waits (retention, run_at, schedules) are times compared in the
// database, never timers.
const TIMER_MAX_MS = 24 * 86_400_000

/**
 * `parseDuration` for a zod `transform`: a bad text becomes an issue instead of an error.
 *
 * Bounds in milliseconds, both inclusive; by default from 1 ms to 24 days, the most a timer holds.
 */
export const readDuration = (
  text: string,
  issues: { addIssue: (message: string) => void },
  { least = 1, most = TIMER_MAX_MS }: { least?: number; most?: number } = {},
): number => {
  try {
    const ms = parseDuration(text)
    if (ms < least) issues.addIssue(`must be at least ${formatDuration(least)}`)
    if (ms > most) issues.addIssue(`must be at most ${formatDuration(most)}`)
    return ms
  } catch (error) {
    if (!(error instanceof TypeError)) throw error
    issues.addIssue(error.message)
    return z.NEVER
  }
}
