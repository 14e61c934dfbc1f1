/** The platform's timers hold 24.8 days; more would fire at once. */
const TIMER_MS_MAX = 2 ** 31 - 1

/** Milliseconds of a clock that nobody sets. */
export const now = (): number => performance.now()

/** Resolves after `ms`, at least; rejects with the signal's reason when it aborts before. */
export function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) return reject(signal.reason as Error)
    const end = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
    }
    const abort = (): void => {
      end()
      reject(signal?.reason as Error)
    }
    const timer = setTimeout(
      () => {
        end()
        resolve()
      },
      Math.min(ms, TIMER_MS_MAX),
    )
    signal?.addEventListener('abort', abort, { once: true })
  })
}

/** A signal that follows another one, and aborts by itself when a time is up. */
export interface Limit {
  readonly signal: AbortSignal
  /** It aborted because the time was up. */
  readonly expired: boolean
  /** Counts from now on, at most so many milliseconds; more than a timer holds is without an end. */
  start(ms: number): void
  /** Counts no more. */
  stop(): void
  /** Aborts, and lets go of the other signal. Always to be called. */
  end(): void
}

/**
 * Not `AbortSignal.any` with `AbortSignal.timeout`: those cannot be stopped, and a long-lived signal keeps what was
 * derived from it.
 */
export function limitOf(outer: AbortSignal | undefined): Limit {
  const controller = new AbortController()
  let expired = false
  let timer: ReturnType<typeof setTimeout> | undefined
  const follow = (): void => controller.abort(outer?.reason)
  const stop = (): void => clearTimeout(timer)
  if (outer?.aborted) follow()
  else outer?.addEventListener('abort', follow, { once: true })
  return {
    signal: controller.signal,
    get expired() {
      return expired
    },
    start: (ms) => {
      stop()
      if (ms > TIMER_MS_MAX) return
      timer = setTimeout(() => {
        expired = !controller.signal.aborted
        controller.abort()
      }, ms)
    },
    stop,
    end: () => {
      stop()
      outer?.removeEventListener('abort', follow)
      controller.abort()
    },
  }
}

/**
 * How long to stay away after the failure number `failures` (from 0): doubling from `baseMs` up to `mostMs`, and of that
 * a random part of at least half, so that many clients that lost the service together do not come back together.
 */
export function backOffMs(failures: number, baseMs: number, mostMs: number): number {
  const whole = Math.min(mostMs, baseMs * 2 ** Math.min(failures, 30))
  return whole * (0.5 + Math.random() / 2)
}

/** What a `Retry-After` asks for in milliseconds, as seconds or as a date; 0 without one that can be read. */
export function retryAfterMs(header: string | null): number {
  if (header === null) return 0
  if (/^\s*\d{1,9}\s*$/.test(header)) return Number(header) * 1000
  const date = Date.parse(header)
  return Number.isNaN(date) ? 0 : Math.max(0, date - Date.now())
}
