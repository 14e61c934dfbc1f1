import { setTimeout as delay } from 'node:timers/promises'

/**
 * The answer of `work`, or after `ms` an error that counts as a lost connection; `onTimeout` then gives up whatever did
 * not answer. `work` itself cannot be stopped: a late answer is dropped.
 */
export async function within<T>(ms: number, work: Promise<T>, onTimeout: () => void): Promise<T> {
  const abort = new AbortController()
  const timeout = delay(ms, undefined, { signal: abort.signal }).then(() => {
    onTimeout()
    throw Object.assign(new Error(`no answer within ${ms} ms`), { code: 'CONNECTION_CLOSED' })
  })
  timeout.catch(() => {})
  work.catch(() => {})
  try {
    return await Promise.race([work, timeout])
  } finally {
    abort.abort()
  }
}
