/** Pause after the first attempt that failed; each further one doubles it. */
const FIRST_MS = 1_000
const LONGEST_MS = 3_600_000
/** What a receiver may ask for at most: no delivery lives for longer. */
const RETRY_AFTER_MS_MAX = 24 * 3_600_000

/**
 * Milliseconds until the next attempt, after `attempts` of them: exponential from one second to an hour, the upper half of it
 * by chance, so that what failed together does not come back together. A `Retry-After` (seconds or a date) can only make
 * it longer.
 *
 * @param random from 0 to 1
 */
export function pauseMs(
  attempts: number,
  retryAfter: string | undefined,
  { now, random }: { now: number; random: number },
): number {
  const full = Math.min(FIRST_MS * 2 ** (attempts - 1), LONGEST_MS)
  return Math.round(Math.max(full * (0.5 + random / 2), askedMs(retryAfter, now)))
}

function askedMs(retryAfter: string | undefined, now: number): number {
  if (retryAfter === undefined) return 0
  const text = retryAfter.trim()
  const ms = /^\d+$/.test(text) ? Number(text) * 1000 : Date.parse(text) - now
  return Number.isNaN(ms) ? 0 : Math.min(ms, RETRY_AFTER_MS_MAX)
}
