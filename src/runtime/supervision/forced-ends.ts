import { type HostedRow, isTerminal } from '../../store/rows.ts'
import type { Host } from '../run/host.ts'
import type { Mailroom } from '../commands/mailroom.ts'
import type { RunMessage } from '../run/messages.ts'

/** An unfinished run somewhere below another one. */
export interface Below {
  run_id: string
  /** 1: a child. */
  depth: number
}

/** How often a run that goes on meanwhile is looked at anew. */
const TRIES = 5

const goneAbove = (by: string): RunMessage[] => [
  { type: 'cancel.requested', by, reason: 'the run above it was ended by force' },
  { type: 'cancel.expired' },
]

export interface ForcedEndsOptions {
  host: Host
  mailroom: Mailroom
  loadRun: (runId: string) => Promise<HostedRow | undefined>
  /** The runs that it and those below it have delegated and that are not over, the deepest first. */
  loadBelow: (runId: string) => Promise<Below[]>
  /** Tells the owner on another node to look at what it has. */
  hint: () => void
}

/**
 * Ends runs that their executors do not end: the one place where that is done. The run of this node is cut off from its
 * executor first and then ends through its actor. Another node's is ended over its head, by a record under the owner and
 * version that were seen: from then on the row has no owner, so whatever its executor still writes is refused, and nobody
 * can be given its lane before. What the run has delegated ends before it, from the leaves up.
 */
export class ForcedEnds {
  #options: ForcedEndsOptions

  constructor(options: ForcedEndsOptions) {
    this.#options = options
  }

  /** False when it is not as it was seen any more: it has moved, ended, or belongs to somebody else. */
  async end(runId: string, version: number | null, messages: RunMessage[]): Promise<boolean> {
    const { host, loadRun } = this.#options
    const row = host.has(runId) ? undefined : await loadRun(runId)
    if (row && version !== null && row.version !== version) return false
    await this.endBelow(runId)
    return this.#endOne(runId, version, messages)
  }

  /** Ends what a run has delegated, all that is still open. The run itself is cut off first, so that it delegates no more. */
  async endBelow(runId: string): Promise<void> {
    const below = await this.#options.loadBelow(runId)
    this.#options.host.find(runId)?.endSession()
    for (const level of Map.groupBy(below, ({ depth }) => depth).values())
      await Promise.all(level.map(({ run_id }) => this.#endOne(run_id, null, goneAbove(runId))))
  }

  async #endOne(runId: string, version: number | null, messages: RunMessage[]): Promise<boolean> {
    const { host, mailroom, loadRun, hint } = this.#options
    const hosted = host.find(runId)
    if (hosted) return hosted.end(messages)
    for (let attempt = 0; attempt < TRIES; attempt += 1) {
      const row = await loadRun(runId)
      if (!row || isTerminal(row.status) || (version !== null && row.version !== version))
        return false
      if (await mailroom.decide(row, messages)) {
        hint()
        return true
      }
      // It has moved while it was looked at; what was found of it then may not hold any more.
      if (version !== null) return false
    }
    return false
  }
}
