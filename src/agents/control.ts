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
