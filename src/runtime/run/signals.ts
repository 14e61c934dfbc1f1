import type { ReadSignal, SessionCall, Signal } from '../../agents/port.ts'
import { SessionClosed } from '../../errors.ts'
import type { Ledger } from './ledger.ts'
import type { Letter, MessageOf } from './messages.ts'

/** Signals read at once: each may be large. */
const READ_MAX = 8

/** The unread signals of this name, oldest first, without those in `taken`. */
export type ReadSignals = (
  runId: string,
  which: { name: string; taken: string[]; limit: number },
) => Promise<Signal[]>

/** The calls that wait for signals of one name, in the order in which they asked. */
interface Line {
  waiting: PromiseWithResolvers<Signal>[]
  reading: boolean
  /** Something may have come since the read that is under way began. */
  again: boolean
}

/**
 * The signals that the session of a run waits for. Each is given to one call; it stays in the inbox until the commit that
 * records that call, so a session that ends before has read nothing.
 */
export class Signals {
  #runId: string
  #read: ReadSignals
  #lines = new Map<string, Line>()
  /** Given to a call whose record is on its way. */
  #given = new Set<string>()

  constructor(runId: string, read: ReadSignals) {
    this.#runId = runId
    this.#read = read
  }

  get isAwaited(): boolean {
    for (const { waiting } of this.#lines.values()) if (waiting.length > 0) return true
    return false
  }

  /** Resolves with the next signal of this name: at once if one is there. @throws SessionClosed */
  next(name: string): Promise<Signal> {
    const line = this.#lines.get(name) ?? { waiting: [], reading: false, again: false }
    this.#lines.set(name, line)
    const asked = Promise.withResolvers<Signal>()
    line.waiting.push(asked)
    this.#look(name, line)
    return asked.promise
  }

  /** Some may have come. */
  look(): void {
    for (const [name, line] of this.#lines) this.#look(name, line)
  }

  /** Given to a call of this session: what it records of it counts. */
  isGiven(commandId: string): boolean {
    return this.#given.has(commandId)
  }

  /** It is consumed. */
  settled(commandId: string): void {
    this.#given.delete(commandId)
  }

  /** Nobody waits any more. */
  close(): void {
    for (const { waiting } of this.#lines.values())
      for (const { promise, reject } of waiting.splice(0)) {
        promise.catch(() => {})
        reject(new SessionClosed('the run is not ours any more'))
      }
    this.#lines.clear()
    this.#given.clear()
  }

  #look(name: string, line: Line): void {
    line.again = true
    if (line.reading) return
    line.reading = true
    this.#hand(name, line)
      // It stays unread: the next look finds it.
      .catch(() => {})
      .finally(() => {
        line.reading = false
        if (line.again && line.waiting.length > 0) this.#look(name, line)
      })
  }

  async #hand(name: string, line: Line): Promise<void> {
    while (line.again && line.waiting.length > 0) {
      line.again = false
      const limit = Math.min(line.waiting.length, READ_MAX)
      const found = await this.#read(this.#runId, { name, taken: [...this.#given], limit })
      for (const row of found) {
        const asked = line.waiting.shift()
        if (!asked) return
        this.#given.add(row.command_id)
        asked.resolve(row)
      }
      line.again ||= found.length === limit
    }
  }
}

/** A signal that its run did not take stays for the next call: see `durable`. */
export const signalLetter = ({ command_id, by }: ReadSignal): Letter => ({
  kind: 'signal',
  dedupe_key: command_id,
  command_id: null,
  audit: { action: 'signal', actor: by, role: 'system', reason: null, request_id: null },
})

/** Parks a run until one of the signals comes that these calls wait for. */
export function askForSignals(
  { runId, chart }: Ledger,
  calls: SessionCall[],
): MessageOf<'human.asked'> {
  const firsts = new Map(calls.toReversed().map((call) => [call.tool, call]))
  const waitpoints = [...firsts.values()]
    .toReversed()
    .map(({ tool: name, position, tool_call_id }) => ({
      token_id: `wp_${runId}.${chart.context.attempt}.${position}`,
      kind: 'signal' as const,
      name,
      tool_call_id,
      tool: null,
      prompt: `waiting for the signal "${name}"`,
    }))
  // The first that comes lets it go on, whichever it is: its code then says whether it waits for others.
  return { type: 'human.asked', questions: 1, waitpoints, calls }
}
