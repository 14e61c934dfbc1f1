import type { WatchdogClock } from '../../../machines/run-setup.ts'
import type { RunStatus } from '../../store/rows.ts'
import type { RunMessage } from './messages.ts'

/** A tool call in flight. */
export interface CallVitals {
  tool_call_id: string
  /** When it has last shown progress, in monotonic milliseconds. */
  movedAt: number
  /** When it ends by itself, in milliseconds from its start, as its tool says; null: it does not. */
  timeout_ms: number | null
}

/** When an attempt has last moved, in monotonic milliseconds: what the clocks of the watchdog measure. */
export class Vitals {
  /** Since when the attempt has been this node's. */
  activeSince: number
  /** Its executor has begun it: what it does not do before is not its silence. */
  begun = false
  /** A delta, a phase, a note of a tool, an answer, a boundary; never a mere heartbeat. */
  movedAt: number
  /** When its turn began, not counting what the turn's clock leaves out. */
  turnSince: number
  /** Its turn was extended when its time was up: what was added counts as if its limit had been reached only then. */
  turnLimitFrom = -Infinity
  /** Since when it is stuck, as far as this node knows, by which clock, and whether a verdict on that was told. */
  stuck: { at: number; clock: WatchdogClock; judged: boolean } | null = null
  /** Since when it has been an orphan, as far as this node knows. */
  orphanAt: number | null = null
  #calls = new Map<string, CallVitals>()
  /** It waits for other runs alone, and that long has been left out already. */
  #waitsSince: number | null = null

  constructor(now: number) {
    this.activeSince = now
    this.movedAt = now
    this.turnSince = now
  }

  /** Another attempt, or the same one goes on here: its executor is asked to begin it. */
  open(now: number): void {
    this.activeSince = now
    this.orphanAt = null
    this.close()
  }

  /** Its executor has begun it. */
  begin(now: number): void {
    this.begun = true
    this.movedAt = now
    this.turnSince = now
  }

  /** Nothing of the attempt runs any more. */
  close(): void {
    this.begun = false
    this.turnLimitFrom = -Infinity
    this.stuck = null
    this.#calls.clear()
    this.#waitsSince = null
  }

  get calls(): CallVitals[] {
    return [...this.#calls.values()]
  }

  /** So long the process itself stood still: nobody can have moved meanwhile. */
  forgive(ms: number): void {
    this.movedAt += ms
    for (const call of this.#calls.values()) call.movedAt += ms
    if (this.stuck?.clock === 'executor') this.stuck.at += ms
    if (this.#waitsSince === null) this.#leaveOut(ms)
  }

  /** What the run has said, with the status that it has by that. */
  note(message: RunMessage, status: RunStatus, now: number): void {
    this.look(status, now)
    if (!MOVES.has(message.type)) return
    this.movedAt = now
    if (message.type === 'tool.started') {
      const { tool_call_id } = message.call
      this.#calls.set(tool_call_id, { tool_call_id, movedAt: now, timeout_ms: message.timeout_ms })
    }
    if (message.type === 'tool.finished') this.#calls.delete(message.call.tool_call_id)
    if (message.type !== 'progress.reported' || message.tool_call_id === undefined) return
    const told = this.#calls.get(message.tool_call_id)
    if (told) told.movedAt = now
  }

  /**
   * While it waits for other runs alone, their clocks count and its turn does not; nor does what was found of it before,
   * unless that is its executor, which is not the one that waits.
   */
  look(status: RunStatus, now: number): void {
    if (this.#waitsSince !== null) this.#leaveOut(now - this.#waitsSince)
    this.#waitsSince = status === 'waiting_on_child' ? now : null
  }

  /** It is stuck by this clock, or not any more. */
  flag(clock: WatchdogClock | null, now: number): void {
    if (clock === null) this.stuck = null
    else if (this.stuck) this.stuck.clock = clock
    else this.stuck = { at: now, clock, judged: false }
  }

  /** An operator gives its turn more time, beside the `extraMs` that it has been given before. */
  extend(extraMs: number, status: RunStatus, now: number): void {
    this.look(status, now)
    this.turnLimitFrom = Math.max(this.turnLimitFrom, now - extraMs)
  }

  #leaveOut(ms: number): void {
    this.turnSince += ms
    this.turnLimitFrom += ms
    if (this.stuck && this.stuck.clock !== 'executor') this.stuck.at += ms
  }
}

const MOVES: ReadonlySet<RunMessage['type']> = new Set([
  'session.ready',
  'tool.started',
  'tool.finished',
  'child.started',
  'child.awaited',
  'child.reported',
  'call.recorded',
  'progress.reported',
])
