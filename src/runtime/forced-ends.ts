import type { HostedRow } from '../store/rows.ts'
import type { Host } from './host.ts'
import type { Mailroom } from './mailroom.ts'
import type { RunMessage } from './messages.ts'

export interface ForcedEndsOptions {
  host: Host
  mailroom: Mailroom
  loadRun: (runId: string) => Promise<HostedRow | undefined>
  /** Tells the owner on another node to look at what it has. */
  hint: () => void
}

/**
 * Ends runs that their executors do not end: the one place where that is done. The run of this node is cut off from its
 * executor first and then ends through its actor. Another node's is ended over its head, by a record under the owner and
 * version that were seen: from then on the row has no owner, so whatever its executor still writes is refused, and nobody
 * can be given its lane before.
 */
export class ForcedEnds {
  #options: ForcedEndsOptions

  constructor(options: ForcedEndsOptions) {
    this.#options = options
  }

  /** False when it is not as it was seen any more: it has moved, ended, or belongs to somebody else. */
  async end(runId: string, version: number | null, messages: RunMessage[]): Promise<boolean> {
    const { host, mailroom, loadRun, hint } = this.#options
    const hosted = host.find(runId)
    if (hosted) return hosted.end(messages)
    const row = await loadRun(runId)
    if (!row || (version !== null && row.version !== version)) return false
    if (!(await mailroom.decide(row, messages))) return false
    hint()
    return true
  }
}
