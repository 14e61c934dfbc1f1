import { SessionClosed } from '../errors.ts'

/** How a session is told to end: at its next boundary (cancel, drain) or at once (kill). */
export class SessionControl {
  /** Aborts whatever may be left undone at a cancel: thinking, waiting, calls that change nothing outside. */
  readonly soft = new AbortController()
  /** Aborts calls that can be invoked again elsewhere. */
  readonly drained = new AbortController()
  readonly hard = new AbortController()

  cancel(): void {
    this.soft.abort(new SessionClosed('the run was cancelled'))
  }

  drain(): void {
    this.drained.abort(new SessionClosed('the node is draining'))
  }

  kill(): void {
    this.hard.abort(new SessionClosed('the session was ended'))
  }

  get ending(): boolean {
    return this.soft.signal.aborted || this.drained.signal.aborted || this.hard.signal.aborted
  }
}

/** What is waited for, unless one of these endings comes first. @throws SessionClosed */
export const unless = <T>(waited: Promise<T>, endings: AbortController[]): Promise<T> =>
  Promise.race([
    waited,
    aborted(AbortSignal.any(endings.map(({ signal }) => signal))).then(() =>
      Promise.reject(new SessionClosed('the session is ending')),
    ),
  ])

export const aborted = (signal: AbortSignal): Promise<void> =>
  new Promise((resolve) => {
    if (signal.aborted) return resolve()
    signal.addEventListener('abort', () => resolve(), { once: true })
  })
