import { createHash, type Hash } from 'node:crypto'
import { setTimeout as delay } from 'node:timers/promises'
import { clip } from '../clip.ts'
import type { Json } from '../json.ts'
import type { CallRow } from '../store/rows.ts'
import type { CallDesk, OpenCall } from './call-desk.ts'
import { SAYING_LENGTH_MAX } from './port.ts'

/** Deltas of one run in a second, at most. */
const DELTAS_PER_SECOND = 10

/** When the next delta of a run may go out; all its messages share the pace. */
export class DeltaPace {
  #latest: number[] = []

  /** Milliseconds to wait for a turn that is spread over the second; `last`: the end of a message waits no longer than it must. */
  waitMs(last: boolean): number {
    const now = performance.now()
    const full = this.#latest.at(-DELTAS_PER_SECOND)
    const previous = this.#latest.at(-1)
    const spread = last || previous === undefined ? 0 : previous + 1000 / DELTAS_PER_SECOND - now
    const room = full === undefined ? 0 : full + 1000 - now
    return Math.max(0, spread, room)
  }

  taken(): void {
    this.#latest.push(performance.now())
    if (this.#latest.length > DELTAS_PER_SECOND) this.#latest.shift()
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
  #text = ''
  /** How much of it is out. */
  #sent = 0
  #hash: Hash = createHash('sha256')
  #before: Streamed | null
  #flushing: Promise<void> | null = null

  constructor(desk: CallDesk, call: OpenCall, recorded: CallRow | undefined, pace: DeltaPace) {
    this.#desk = desk
    this.#call = call
    this.#pace = pace
    this.#before = streamedBefore(recorded)
  }

  get text(): string {
    return this.#text
  }

  push(text: string): void {
    this.#text += text.replaceAll('\0', '\uFFFD')
    this.#flushing ??= this.#flush().finally(() => {
      this.#flushing = null
    })
  }

  /** Sends what is left. Afterwards the deltas make up exactly `text`. */
  async end(): Promise<void> {
    await this.#flushing
    // Half a character at the end stays alone for good.
    this.#text = this.#text.toWellFormed()
    if (this.#before) this.#catchUp(this.#before, true)
    if (this.#sent === this.#text.length) return
    await this.#turn(true)
    this.#send(this.#text.length)
  }

  async #flush(): Promise<void> {
    while (this.#ready > this.#sent) {
      await this.#turn(false)
      this.#send(this.#ready)
      await this.#desk.port.barrier()
    }
  }

  /** How far the text can go out: not into half a character, and not before it has passed what was streamed before. */
  get #ready(): number {
    if (this.#before && !this.#catchUp(this.#before, false)) return 0
    const last = this.#text.charCodeAt(this.#text.length - 1)
    return last >= 0xd800 && last <= 0xdbff ? this.#text.length - 1 : this.#text.length
  }

  #catchUp(before: Streamed, ended: boolean): boolean {
    if (!ended && this.#text.length < before.length) return false
    const same = digestOf(this.#text.slice(0, before.length)) === before.digest
    this.#before = null
    if (same) this.#advance(before.length)
    else if (ended && this.#text === '') this.#send(0)
    return true
  }

  async #turn(last: boolean): Promise<void> {
    const wait = this.#pace.waitMs(last)
    if (wait > 0) await delay(wait)
    this.#desk.boundary()
  }

  #send(end: number): void {
    const offset = this.#sent
    const text = this.#text.slice(offset, end)
    this.#advance(end)
    this.#pace.taken()
    const streamed = { length: end, digest: this.#hash.copy().digest('hex') }
    this.#desk.port.send({
      type: 'progress.reported',
      saying: clip(this.#text, SAYING_LENGTH_MAX),
      call: this.#desk.started(this.#call, null, { streamed } as unknown as Json),
      delta: { text, offset },
    })
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
