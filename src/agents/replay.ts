import type { CallRow } from '../store/rows.ts'
import { RunError } from './agent.ts'

/** How much longer than it took then the code may take to ask for a recorded call while others wait for their turn. */
const MISSING_MS = 5_000
/** A gap in the record may be a crash and no wait of the code: not more of it counts. */
const GAP_MS_MAX = 600_000

/** A call as far as its place in the order is concerned. */
type Asked = Pick<CallRow, 'position' | 'kind' | 'tool' | 'args_hash'>
type Placed = Asked & Pick<CallRow, 'finished_at'>

interface Waiting {
  resolve: () => void
  reject: (error: RunError) => void
}

/**
 * The envelope of earlier attempts. A call is found by its position and must be the same call; recorded results settle
 * in the order in which they settled then, so that code with `Promise.all` or races takes the same way again.
 */
export class Replay {
  #byPosition: Map<number, CallRow>
  /** Positions of settled async calls in the order in which they settled. */
  #order: Placed[]
  #waiting = new Map<Placed, Waiting>()
  #settled: number
  /** When the last call that was released had settled then. */
  #releasedAt: string | null = null
  #missing: ReturnType<typeof setTimeout> | null = null

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
    if (this.#missing) clearTimeout(this.#missing)
    const next = this.#byPosition.get(position + 1)
    if (!next) return
    throw new RunError(
      'nondeterministic_replay',
      `the agent returned after ${position} calls now and went on with call ${position + 1}, ${nameOf(next)}, before: its code has changed or is not deterministic`,
    )
  }

  /**
   * Resolves when every call that settled before this one has settled again.
   * @throws RunError nondeterministic_replay when the code does not make one of those any more
   */
  turnOf(recorded: Placed): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiting.set(recorded, { resolve, reject })
      this.#release()
    })
  }

  /** The same for a call that has no result yet: it comes after every recorded one. */
  turnAfter(call: Asked): Promise<void> {
    const last = { ...call, finished_at: null }
    this.#order.push(last)
    return this.turnOf(last)
  }

  nextSettled(): number {
    this.#settled += 1
    return this.#settled
  }

  #release(): void {
    if (this.#missing) clearTimeout(this.#missing)
    this.#missing = null
    const next = this.#order[0]
    if (!next || this.#waiting.size === 0) return
    const waiting = this.#waiting.get(next)
    if (!waiting) {
      // What led to it is released: the code asks for it as soon as it did then, or never.
      this.#missing = setTimeout(() => this.#giveUp(next), MISSING_MS + this.#gapBefore(next))
      return
    }
    this.#order.shift()
    this.#waiting.delete(next)
    this.#releasedAt = next.finished_at
    waiting.resolve()
    // The code behind this call runs first, as it did then.
    setImmediate(() => this.#release())
  }

  #gapBefore(next: Placed): number {
    if (next.finished_at === null || this.#releasedAt === null) return 0
    const gap = Date.parse(next.finished_at) - Date.parse(this.#releasedAt)
    return Math.min(Math.max(gap, 0), GAP_MS_MAX)
  }

  #giveUp(missing: Placed): void {
    for (const [call, { reject }] of this.#waiting) {
      reject(
        new RunError(
          'nondeterministic_replay',
          `call ${missing.position}, ${nameOf(missing)}, is not made now and had ended before call ${call.position}, ${nameOf(call)}, did: the agent's code has changed or is not deterministic`,
        ),
      )
    }
    this.#waiting.clear()
  }
}

const nameOf = (call: { kind: string; tool: string; args_hash: string | null }): string =>
  `${call.kind} ${call.tool}${call.args_hash === null ? '' : ` (arguments ${call.args_hash.slice(0, 8)})`}`

/** A failed model call keeps its kind of failure as its result. */
export function modelCodeOf({ result }: CallRow): string {
  const code =
    typeof result === 'object' && result !== null && !Array.isArray(result) && result['code']
  return typeof code === 'string' ? code : 'unknown'
}
