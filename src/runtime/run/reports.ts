import type { ChildReport } from '../../agents/port.ts'
import { SessionClosed } from '../../errors.ts'

/**
 * What the session of a run waits for from the runs that it delegated. A letter only says that a report is there: the
 * report is read from the child's own row, so it is the same whenever and however often it is asked for.
 */
export class Reports {
  #load: (childRunId: string) => Promise<ChildReport | undefined>
  #waiting = new Map<string, PromiseWithResolvers<ChildReport>>()

  constructor(load: (childRunId: string) => Promise<ChildReport | undefined>) {
    this.#load = load
  }

  /** Resolves when the child has ended: at once if it has. @throws SessionClosed */
  of(childRunId: string): Promise<ChildReport> {
    const known = this.#waiting.get(childRunId)
    if (known) return known.promise
    const waiting = Promise.withResolvers<ChildReport>()
    this.#waiting.set(childRunId, waiting)
    this.arrived(childRunId)
    return waiting.promise
  }

  /** There may be one. */
  arrived(childRunId: string): void {
    const waiting = this.#waiting.get(childRunId)
    if (!waiting) return
    this.#load(childRunId).then(
      (report) => {
        if (!report) return
        this.#waiting.delete(childRunId)
        waiting.resolve(report)
      },
      // Its letter is delivered again until it is consumed.
      () => {},
    )
  }

  /** Nobody waits any more. */
  close(): void {
    for (const { promise, reject } of this.#waiting.values()) {
      promise.catch(() => {})
      reject(new SessionClosed('the run is not ours any more'))
    }
    this.#waiting.clear()
  }
}
