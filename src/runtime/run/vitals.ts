import type { RunStatus } from '../../store/rows.ts'
import type { RunMessage } from './messages.ts'

/** When an attempt has last moved, in monotonic milliseconds: what the clocks of the watchdog measure. */
export class Vitals {
  startedAt: number
  /** A delta, a phase, a note of a tool, an answer; never a mere heartbeat. */
  movedAt: number
  /** Since when it is stuck, as far as this node knows, and whether a verdict on that was told. */
  stuck: { at: number; judged: boolean } | null = null
  /** Since when it has been an orphan, as far as this node knows. */
  orphanAt: number | null = null
  /** Tool calls in flight, each with its own progress. */
  readonly tools = new Map<string, { tool: string; movedAt: number }>()

  constructor(now: number) {
    this.startedAt = now
    this.movedAt = now
  }

  /** Another attempt begins, or the same goes on here. */
  begin(now: number): void {
    this.startedAt = now
    this.movedAt = now
    this.tools.clear()
    this.stuck = null
    this.orphanAt = null
  }

  /** So long the process itself stood still: nobody can have moved meanwhile. */
  forgive(ms: number): void {
    this.startedAt += ms
    this.movedAt += ms
    if (this.stuck) this.stuck.at += ms
    for (const call of this.tools.values()) call.movedAt += ms
  }

  note(message: RunMessage, now: number): void {
    if (!MOVES.has(message.type)) return
    this.movedAt = now
    if (message.type === 'tool.started')
      this.tools.set(message.call.tool_call_id, { tool: message.call.tool, movedAt: now })
    if (message.type === 'tool.finished') this.tools.delete(message.call.tool_call_id)
    if (message.type !== 'progress.reported' || message.tool_call_id === undefined) return
    const told = this.tools.get(message.tool_call_id)
    if (told) told.movedAt = now
  }

  /** Since when the run, in this status, has not moved. */
  silentSince(status: RunStatus): number {
    if (status !== 'waiting_on_tool') return this.movedAt
    return Math.min(this.movedAt, ...[...this.tools.values()].map(({ movedAt }) => movedAt))
  }
}

const MOVES: ReadonlySet<RunMessage['type']> = new Set([
  'session.ready',
  'tool.started',
  'tool.finished',
  'child.started',
  'child.reported',
  'call.recorded',
  'progress.reported',
])
