import { setTimeout as pause } from 'node:timers/promises'
import { inspect } from 'node:util'

/**
 * Polls `check` until it answers something truthy without throwing, and returns that. A check that
 * hangs counts as failed when the time is up.
 *
 * @throws when the time is up; the message and `cause` carry the last error of `check`.
 */
export const eventually = async <T>(
  check: () => T | Promise<T>,
  { timeoutMs = 10_000, everyMs = 20, message = 'the condition' }: EventuallyOptions = {},
): Promise<Truthy<T>> => {
  const deadline = performance.now() + timeoutMs
  const attempts: Attempts = { latest: undefined }
  do {
    const value = await within(deadline - performance.now(), attempts, check)
    if (value) return value as Truthy<T>
    await pause(everyMs)
  } while (performance.now() < deadline)
  throw expired(timeoutMs, typeof message === 'string' ? message : message(), attempts.latest)
}

export type EventuallyOptions = {
  /** Default: 10,000. */
  readonly timeoutMs?: number
  /** Between the end of a check and the next. Default: 20. */
  readonly everyMs?: number
  /** What is awaited, as in "… did not come true"; a function is asked when the time is up. */
  readonly message?: string | (() => string)
}

type Truthy<T> = Exclude<Awaited<T>, false | 0 | '' | null | undefined>
type Attempts = { latest: unknown }

const within = async <T>(
  ms: number,
  attempts: Attempts,
  check: () => T | Promise<T>,
): Promise<T | undefined> => {
  const limit = new AbortController()
  try {
    const value = await Promise.race([
      Promise.resolve(check()),
      pause(Math.max(ms, 1), HUNG, { signal: limit.signal }),
    ])
    if (value === HUNG) {
      attempts.latest ??= new Error('the check did not answer')
      return undefined
    }
    attempts.latest = undefined
    return value
  } catch (error) {
    attempts.latest = error
    return undefined
  } finally {
    limit.abort()
  }
}

const HUNG = Symbol('hung')

const expired = (timeoutMs: number, message: string, latest: unknown): Error => {
  const reason = latest instanceof Error ? latest.message : inspect(latest)
  const why = latest === undefined ? '' : `: ${reason}`
  return new Error(`${message} did not come true within ${timeoutMs} ms${why}`, { cause: latest })
}
