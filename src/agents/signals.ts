import type { Json } from '../json.ts'
import { RunError } from './agent.ts'
import type { CallDesk, OpenCall } from './call-desk.ts'
import { SIGNAL_NAME } from './port.ts'
import { toJson } from './values.ts'

/** How long code has to be still, but for waits for signals, before its run is parked, in milliseconds. */
const STILL_MS = 500
/** Calls of one run that wait for signals at the same time. */
const WAITS_MAX = 100

/**
 * The calls of one attempt that wait for signals. One that gets its signal is recorded in the commit that consumes it. When
 * nothing else is under way the run is parked, which ends the attempt: its code comes back to these calls when one of the
 * signals is there.
 */
export class SignalWaits {
  #desk: CallDesk
  /** In the order in which the code asked. */
  #waiting = new Set<OpenCall>()
  #still: ReturnType<typeof setTimeout> | null = null

  constructor(desk: CallDesk) {
    this.#desk = desk
    desk.onMove = () => this.#moved()
  }

  async next(name: string): Promise<Json> {
    const desk = this.#desk
    if (typeof name !== 'string' || !SIGNAL_NAME.test(name))
      throw new RunError(
        'invalid_signal_name',
        'ctx.signalNamed takes a name of 1 to 64 letters, digits, _ . : or -',
      )
    const { call, recorded } = desk.open('signal', name, null)
    if (recorded && recorded.outcome !== 'started') return desk.replayed(recorded)
    const startedAt = performance.now()
    await desk.afterReplay(call)
    const { data, ...signal } = await this.#waited(call)
    desk.boundary()
    const { size } = toJson(data)
    const read = desk.succeeded(call, data, size, startedAt)
    desk.port.send({ type: 'call.recorded', call: read, signal })
    return data
  }

  async #waited(call: OpenCall) {
    if (this.#waiting.size >= WAITS_MAX)
      throw new RunError(
        'too_many_signal_waits',
        `no more than ${WAITS_MAX} calls of a run wait for signals at the same time`,
      )
    this.#waiting.add(call)
    this.#moved()
    try {
      return await this.#desk.unlessEnding(this.#desk.port.signalNamed(call.tool))
    } finally {
      this.#waiting.delete(call)
      this.#moved()
    }
  }

  /** The code may be still from now on. */
  #moved(): void {
    if (this.#still) clearTimeout(this.#still)
    const isStill = this.#waiting.size > 0 && !this.#desk.isOccupied && !this.#desk.isOver
    this.#still = isStill ? setTimeout(() => void this.#park(), STILL_MS) : null
  }

  async #park(): Promise<void> {
    const calls = [...this.#waiting].map((call) => this.#desk.started(call, null))
    // Refused, it is about to be told why; closed, it has ended.
    const isParked = await this.#desk.port.park(calls).catch(() => true)
    if (!isParked) this.#moved()
  }
}
