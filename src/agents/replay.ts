import type { CallRow } from '../store/rows.ts'
import { RunError } from './agent.ts'

/**
 * The envelope of earlier attempts. A call is found by its position and must be the same call; recorded results settle
 * in the order in which they settled then, so that code with `Promise.all` or races takes the same way again.
 */
export class Replay {
  #byPosition: Map<number, CallRow>
  /** Positions of settled async calls in the order in which they settled. */
  #order: CallRow[]
  #waiting = new Map<CallRow, () => void>()
  #settled: number

  constructor(calls: CallRow[]) {
    this.#byPosition = new Map(calls.map((call) => [call.position, call]))
    this.#order = calls
      .filter((call) => call.settled !== null && call.kind !== 'value')
      .toSorted((a, b) => (a.settled ?? 0) - (b.settled ?? 0))
    this.#settled = Math.max(0, ...calls.map((call) => call.settled ?? 0))
  }

  /** The record of this call, if it was made before. @throws RunError nondeterministic_replay, naming both calls */
  find(call: {
    position: number
    tool_call_id: string
    kind: string
    tool: string
    args_hash: string | null
  }): CallRow | undefined {
    const recorded = this.#byPosition.get(call.position)
    if (!recorded) return undefined
    const sameArguments = recorded.args_hash === null || recorded.args_hash === call.args_hash
    if (recorded.kind !== call.kind || recorded.tool !== call.tool || !sameArguments) {
      throw new RunError(
        'nondeterministic_replay',
        `call ${call.position} is ${nameOf(call)} now and was ${nameOf(recorded)} before: the agent's code has changed or is not deterministic`,
      )
    }
    return recorded
  }

  /** The code has returned after `position` calls. @throws RunError nondeterministic_replay when it made more before */
  finished(position: number): void {
    const next = this.#byPosition.get(position + 1)
    if (!next) return
    throw new RunError(
      'nondeterministic_replay',
      `the agent returned after ${position} calls now and went on with call ${position + 1}, ${nameOf(next)}, before: its code has changed or is not deterministic`,
    )
  }

  /** Resolves when every call that settled before this one has settled again. */
  turnOf(recorded: CallRow): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.set(recorded, resolve)
      this.#release()
    })
  }

  nextSettled(): number {
    this.#settled += 1
    return this.#settled
  }

  #release(): void {
    const next = this.#order[0]
    const resolve = next && this.#waiting.get(next)
    if (!resolve) return
    this.#order.shift()
    this.#waiting.delete(next)
    resolve()
    // The code behind this call runs first, as it did then.
    setImmediate(() => this.#release())
  }
}

const nameOf = (call: { kind: string; tool: string; args_hash: string | null }): string =>
  `${call.kind} ${call.tool}${call.args_hash === null ? '' : ` (arguments ${call.args_hash.slice(0, 8)})`}`
