import { createHash, type Hash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { clip } from '../clip.ts'
import type { Json } from '../json.ts'
import type { CallRow } from '../store/rows.ts'
import type { CallDesk, OpenCall } from './call-desk.ts'
import { SAYING_LENGTH_MAX } from './port.ts'
import { cleanText } from './values.ts'

/** Deltas of one run in a second, at most. */
const DELTAS_PER_SECOND = 10
/** A second, and what the clock of the database and ours may differ by in it. */
const SECOND_MS = 1_010

/** A delta's place in the pace of its run. */
interface Turn {
  at: number
}

/** When the next delta of a run may go out; all its messages share the pace. */
export class DeltaPace {
  #latest: Turn[] = []

  /** Waits for a turn that is spread over the second; `last`: the end of a message waits no longer than it must. */
  async turn(last: boolean): Promise<Turn> {
    // Another message of the run may have taken the turn that was waited for.
    for (let wait = this.#waitMs(last); wait > 0; wait = this.#waitMs(last)) await delay(wait)
    const turn = { at: performance.now() }
    this.#latest.push(turn)
    if (this.#latest.length > DELTAS_PER_SECOND) this.#latest.shift()
    return turn
  }

  /** Takes a turn if there is one right now. */
  takeNow(): Turn | undefined {
    if (this.#waitMs(true) > 0) return undefined
    const turn = { at: performance.now() }
    this.#latest.push(turn)
    if (this.#latest.length > DELTAS_PER_SECOND) this.#latest.shift()
    return turn
  }

  /** Readers see a delta when it is committed: the second counts from there. */
  committed(turn: Turn): void {
    turn.at = performance.now()
  }

  #waitMs(last: boolean): number {
    const now = performance.now()
    const full = this.#latest.at(-DELTAS_PER_SECOND)
    const previous = this.#latest.at(-1)
    const spread = last || !previous ? 0 : previous.at + SECOND_MS / DELTAS_PER_SECOND - now
    const room = full ? full.at + SECOND_MS - now : 0
    return Math.max(0, spread, room)
  }
}

/** The text of a model call that readers do not see. */
export class QuietText {
  readonly out = null
  text = ''

  push(text: string): void {
    this.text += text
  }

  async end(): Promise<void> {
    this.text = cleanText(this.text) as string
  }
}

/** How much of a message readers have, and what it was. */
interface Streamed {
  length: number
  digest: string
}

/**
 * The text of a model call on its way to the readers: gathered into durable deltas, one at a time, so that a database
 * that is slow or away makes them larger and not more. A repeated call goes on behind what an earlier attempt streamed if
 * it says the same again, and else starts the message over at offset 0.
 */
export class MessageStream {
  #desk: CallDesk
  #call: OpenCall
  #pace: DeltaPace
  /** Whole characters. */
  #text = ''
  /** The first half of a character whose other half is still to come. */
  #half = ''
  /** How much of it is out. */
  #sent = 0
  #hash: Hash = createHash('sha256')
  #before: Streamed | null
  #out: Json
  #flushing: Promise<void> | null = null

  constructor(desk: CallDesk, call: OpenCall, recorded: CallRow | undefined, pace: DeltaPace) {
    this.#desk = desk
    this.#call = call
    this.#pace = pace
    this.#before = streamedBefore(recorded)
    this.#out = recorded?.result ?? null
  }

  /** What is out, for the record of the call. */
  get out(): Json {
    return this.#out
  }

  get text(): string {
    return this.#text
  }

  push(text: string): void {
    const all = this.#half + text
    this.#half = /[\uD800-\uDBFF]$/.test(all) ? all.slice(-1) : ''
    const whole = all.slice(0, all.length - this.#half.length)
    this.#text += whole.toWellFormed().replaceAll('\0', '\uFFFD')
    if (this.#flushing) return
    this.#flushing = this.#flush().finally(() => {
      this.#flushing = null
    })
    // Nobody may be there to hear that the session has ended: whoever calls `end` is told.
    this.#flushing.catch(() => {})
  }

  /** Sends what is left. Afterwards the deltas make up exactly `text`. */
  async end(): Promise<void> {
    await this.#flushing
    // Half a character at the end stays alone for good.
    this.#text += this.#half.toWellFormed()
    const isVoid = this.#before !== null && this.#text === ''
    if (this.#before) this.#catchUp(this.#before, true)
    if (this.#sent === this.#text.length && !isVoid) return
    this.#send(this.#text.length, await this.#turn(true)).catch(() => {})
  }

  async #flush(): Promise<void> {
    while (this.#ready > this.#sent) {
      const turn = await this.#turn(false)
      await this.#send(this.#ready, turn)
    }
  }

  /** How far the text can go out: not before it has passed what was streamed before. */
  get #ready(): number {
    return this.#before && !this.#catchUp(this.#before, false) ? 0 : this.#text.length
  }

  #catchUp(before: Streamed, ended: boolean): boolean {
    if (!ended && this.#text.length < before.length) return false
    const same = digestOf(this.#text.slice(0, before.length)) === before.digest
    this.#before = null
    if (same) this.#advance(before.length)
    return true
  }

  async #turn(last: boolean): Promise<Turn> {
    const turn = await this.#pace.turn(last)
    this.#desk.boundary()
    return turn
  }

  /** Resolves when it is committed. */
  async #send(end: number, turn: Turn): Promise<void> {
    const offset = this.#sent
    const text = this.#text.slice(offset, end)
    this.#advance(end)
    const streamed = { length: end, digest: this.#hash.copy().digest('hex') }
    this.#out = { streamed } as unknown as Json
    this.#desk.port.send({
      type: 'progress.reported',
      saying: clip(this.#text, SAYING_LENGTH_MAX),
      call: this.#desk.started(this.#call, null, this.#out),
      delta: { text, offset },
    })
    await this.#desk.port.barrier()
    this.#pace.committed(turn)
  }

  #advance(end: number): void {
    this.#hash.update(this.#text.slice(this.#sent, end))
    this.#sent = end
  }
}

const digestOf = (text: string): string => createHash('sha256').update(text).digest('hex')

function streamedBefore(recorded: CallRow | undefined): Streamed | null {
  const result = recorded?.result
  if (typeof result !== 'object' || result === null || Array.isArray(result)) return null
  return (result['streamed'] as Streamed | undefined) ?? null
}
