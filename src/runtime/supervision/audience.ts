import type { OnOrphan } from '../../agents/on-orphan.ts'
import { formatDuration, parseDuration } from '../../duration.ts'
import type { RunMessage } from '../run/messages.ts'
import { keyOfConversation, keyOfRun, type Readers } from './readers.ts'

/** A hosted run as its audience is looked at; times are monotonic milliseconds. */
export interface Performing {
  runId: string
  conversationId: string
  /** Its attempt began then. */
  activeSince: number
  stuck: boolean
  /** Since when it has been an orphan, as far as this node knows; null: it is none. */
  orphanSince: number | null
  onOrphan: OnOrphan
  /** Messages that are one decision. */
  send(...messages: RunMessage[]): void
}

export interface AudienceOptions {
  nodeId: string
  /** The active runs here whose surface expects a reader and that nobody has asked to end. */
  runs(): Iterable<Performing>
  readers: Readers
  graceMs: number
  monotonicMs: () => number
}

/**
 * Finds runs that nobody reads although somebody should. That is shown, and otherwise nothing is done about it, unless
 * their agent says so: they may well finish and write something useful.
 */
export class Audience {
  #options: AudienceOptions

  constructor(options: AudienceOptions) {
    this.#options = options
  }

  /** @throws when the database does not answer: then nobody is judged. */
  async look(): Promise<void> {
    const { readers, graceMs, monotonicMs } = this.#options
    await readers.tell()
    const keys = [...this.#options.runs()].flatMap((run) =>
      monotonicMs() - run.activeSince > graceMs ? keysOf(run) : [],
    )
    if (keys.length === 0) return
    const read = await readers.read([...new Set(keys)], graceMs)
    const asked = new Set(keys)
    // As they are now: much may have happened while the database was asked.
    for (const run of this.#options.runs()) {
      const own = keysOf(run)
      if (!own.every((key) => asked.has(key))) continue
      if (own.some((key) => read.has(key))) {
        if (run.orphanSince !== null) run.send({ type: 'readers.back' })
      } else if (run.orphanSince !== null) this.#endIfWanted(run, run.orphanSince)
      else if (!run.stuck) run.send({ type: 'readers.gone', grace_ms: graceMs })
    }
  }

  #endIfWanted(run: Performing, orphanSince: number): void {
    if (run.onOrphan === 'keep') return
    const limit_ms = parseDuration(run.onOrphan.cancel_after)
    const age_ms = this.#options.monotonicMs() - orphanSince
    if (age_ms <= limit_ms) return
    const stuck_reason = `orphan(${formatDuration(limit_ms)})`
    const verdict = {
      action: 'cancel_orphan',
      result: 'ended',
      clock: 'readers',
      stuck_reason,
      limit_ms,
      stuck_ms: Math.round(age_ms),
      executor_silent_ms: null,
      probe: null,
    } as const
    const reason = `nobody has read it for ${formatDuration(limit_ms)}`
    run.send(
      { type: 'verdict.noted', verdict },
      { type: 'cancel.requested', by: 'watchdog', reason, node_id: this.#options.nodeId },
    )
  }
}

const keysOf = ({ runId, conversationId }: Performing): string[] => [
  keyOfRun(runId),
  keyOfConversation(conversationId),
]
