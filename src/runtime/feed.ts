import { setTimeout as delay } from 'node:timers/promises'
import { isConnectionError } from '../store/database.ts'
import type { EventScope, LogBounds } from '../store/events.ts'
import { type RunEventRow, visibilityLevel } from '../store/rows.ts'
import type { Logger } from './log.ts'

export interface FeedOptions {
  readEvents(scope: EventScope, afterId: number, limit: number): Promise<RunEventRow[]>
  logBounds(): Promise<LogBounds>
  log: Logger
}

/** Events that are kept for live readers; one that is further behind is reset. */
const RING_MAX = 10_000
/** Characters of text that these may hold together: events can be as long as what agents say. */
const RING_TEXT_MAX = 32_000_000
const PAGE = 500
/** Characters of text that one page from the database should hold. */
const PAGE_TEXT_MAX = 2_000_000
/** Live events that one reader is given at once: what it holds on to while it is slow, though the ring has moved on. */
const LIVE_PAGE = 100
/** With readers and no hint: how often the log is looked at, in milliseconds. */
const POLL_MS = 500

export interface Reading {
  scope: EventScope
  afterId: number
  signal: AbortSignal
}

export interface RunWatch {
  /** True at the next event of the run, false when the signal aborts or the feed stops. */
  next(signal: AbortSignal): Promise<boolean>
  close(): void
}

/** `reset`: the reader was too slow for the ring, or its cursor is ahead of the log; it has to start over. */
export type Page = RunEventRow[] | 'reset'

/**
 * One tailer per node feeds all its readers. It reads the log in id order (ids are safe cursors) into a ring; readers
 * pull from the ring at their own pace, so a slow one costs no memory and delays nobody.
 */
export class Feed {
  /** Streams that are being read. */
  streams = 0
  /** Readers that were given up: too far behind, or (by whoever writes to them) their connection took nothing. */
  readonly dropped = { behind: 0, stalled: 0 }
  #options: FeedOptions
  /** Events tail-RING_MAX .. tail, oldest first. */
  #ring: RunEventRow[] = []
  #text = 0
  #tail = 0
  /**
   * All later events are in the ring: readers behind it need the database. Not the id before the first one there, since
   * ids have gaps (a commit that was rolled back, a crash of the database).
   */
  #floor = 0
  #known = 0
  #readers = 0
  #loop: Promise<void> = Promise.resolve()
  /** Set while the tailer runs. */
  #started: Promise<void> | null = null
  #wakeTailer: () => void = () => {}
  #wakeReaders = new Set<() => void>()
  #stopping = new AbortController()

  constructor(options: FeedOptions) {
    this.#options = options
  }

  get readers(): number {
    return this.#readers
  }

  /** The log has grown: to `lastId`, or (undefined) by an unknown number. */
  advance(lastId?: number): void {
    if (lastId !== undefined && lastId <= this.#known) return
    this.#known = lastId ?? this.#known
    this.#wakeTailer()
  }

  /**
   * Pages of events after the cursor, in id order, without a gap: first from the database, then live. Ends when the
   * signal aborts or the feed stops.
   */
  async *read({ scope, afterId, signal }: Reading): AsyncGenerator<Page> {
    this.#readers += 1
    this.streams += 1
    const ended = AbortSignal.any([signal, this.#stopping.signal])
    try {
      await this.#ensureTailing()
      if (await this.#isLost(scope, afterId)) {
        yield 'reset'
        return
      }
      let cursor = afterId
      for await (const page of this.#replay(scope, afterId, ended)) {
        cursor = page.cursor
        if (page.events.length > 0) yield page.events
      }
      yield* this.#follow(scope, cursor, ended)
    } finally {
      this.#readers -= 1
      this.streams -= 1
    }
  }

  /**
   * Watches one run from now on: whoever looks at its row after this resolves, and then waits for `next`, misses nothing.
   * `close` must be called.
   */
  async watch(runId: string): Promise<RunWatch> {
    this.#readers += 1
    try {
      await this.#ensureTailing()
    } catch (error) {
      this.#readers -= 1
      throw error
    }
    let seen = this.#tail
    return {
      next: async (signal) => {
        const ended = AbortSignal.any([signal, this.#stopping.signal])
        while (!ended.aborted) {
          const fresh = this.#since(seen)
          seen = this.#tail
          if (fresh.some((event) => event.run_id === runId)) return true
          await this.#moved(ended)
        }
        return false
      },
      close: () => {
        this.#readers -= 1
      },
    }
  }

  async stop(): Promise<void> {
    this.#stopping.abort()
    this.#wakeTailer()
    await this.#loop
  }

  /** The cursor is ahead of the log, or behind what was deleted from it (a run is deleted whole, or not at all). */
  async #isLost({ run_id }: EventScope, afterId: number): Promise<boolean> {
    if (afterId === 0) return false
    const { last, purged } = await this.#options.logBounds()
    if (afterId > this.#tail && afterId > last) return true
    return run_id === undefined && afterId < purged
  }

  async *#replay(scope: EventScope, afterId: number, ended: AbortSignal) {
    let cursor = afterId
    let size = LIVE_PAGE
    while (!ended.aborted) {
      // All that is committed up to this id is visible to the query that follows.
      const tail = this.#tail
      const events = await this.#options.readEvents(scope, cursor, size)
      const whole = events.length < size
      size = nextPageSize(size, events)
      cursor = Math.max(events.at(-1)?.id ?? cursor, whole ? tail : cursor)
      yield { events, cursor }
      if (whole && cursor >= this.#floor) return
    }
  }

  async *#follow(scope: EventScope, from: number, ended: AbortSignal): AsyncGenerator<Page> {
    let cursor = from
    const level = visibilityLevel(scope.visibility)
    while (!ended.aborted) {
      if (cursor < this.#floor) {
        this.dropped.behind += 1
        yield 'reset'
        return
      }
      const fresh = this.#since(cursor, LIVE_PAGE)
      cursor = fresh.at(-1)?.id ?? cursor
      const events = fresh.filter(
        (event) => visibilityLevel(event.visibility) <= level && matches(scope, event),
      )
      if (events.length > 0) yield events
      else if (fresh.length === 0) await this.#moved(ended)
    }
  }

  #since(cursor: number, limit = Infinity): RunEventRow[] {
    if (cursor >= this.#tail) return []
    // Ids ascend: search from the newest, where nearly every reader is.
    let start = this.#ring.length
    while (start > 0 && (this.#ring[start - 1]?.id ?? 0) > cursor) start -= 1
    return this.#ring.slice(start, start + limit)
  }

  #moved(ended: AbortSignal): Promise<void> {
    return new Promise((resolve) => {
      const wake = (): void => {
        ended.removeEventListener('abort', wake)
        this.#wakeReaders.delete(wake)
        resolve()
      }
      if (ended.aborted) return resolve()
      ended.addEventListener('abort', wake, { once: true })
      this.#wakeReaders.add(wake)
    })
  }

  /** Starts the tailer with the first reader; resolves when it knows the end of the log. */
  #ensureTailing(): Promise<void> {
    this.#started ??= this.#begin()
    return this.#started
  }

  async #begin(): Promise<void> {
    try {
      const { last } = await this.#options.logBounds()
      this.#ring = []
      this.#text = 0
      this.#tail = last
      this.#floor = last
    } catch (error) {
      this.#started = null
      throw error
    }
    this.#loop = this.#tailWhileRead()
  }

  async #tailWhileRead(): Promise<void> {
    while (this.#readers > 0 && !this.#stopping.signal.aborted) {
      try {
        await this.#readOn()
      } catch (error) {
        if (!isConnectionError(error))
          this.#options.log.error({ problem: String(error) }, 'the tailer failed')
        await delay(POLL_MS)
      }
    }
    this.#started = null
    this.#wakeAll()
  }

  async #readOn(): Promise<void> {
    const woken = new Promise<void>((resolve) => {
      this.#wakeTailer = resolve
    })
    const events = await this.#options.readEvents({ visibility: 'internal' }, this.#tail, PAGE * 2)
    if (events.length > 0) this.#append(events)
    if (events.length === PAGE * 2) return
    // Ids of a rolled-back commit are never used: the known end may be beyond the last event.
    if (events.length > 0 && this.#known > this.#tail) return
    const timer = new AbortController()
    await Promise.race([woken, delay(POLL_MS, undefined, { signal: timer.signal }).catch(() => {})])
    timer.abort()
  }

  #append(events: RunEventRow[]): void {
    this.#ring.push(...events)
    for (const event of events) this.#text += textOf(event)
    if (this.#ring.length > RING_MAX * 1.2 || this.#text > RING_TEXT_MAX) this.#trim()
    this.#tail = events.at(-1)?.id ?? this.#tail
    this.#wakeAll()
  }

  /** Drops the oldest events: all beyond the count, and more while they hold too much text. */
  #trim(): void {
    let drop = 0
    while (
      drop < this.#ring.length &&
      (this.#ring.length - drop > RING_MAX || this.#text > RING_TEXT_MAX)
    ) {
      this.#text -= textOf(this.#ring[drop] as RunEventRow)
      drop += 1
    }
    this.#floor = this.#ring[drop - 1]?.id ?? this.#floor
    this.#ring = this.#ring.slice(drop)
  }

  #wakeAll(): void {
    const waiting = [...this.#wakeReaders]
    this.#wakeReaders.clear()
    for (const wake of waiting) wake()
  }
}

/** Pages grow while they hold little text: what a reader costs is bounded by characters, not by events. */
function nextPageSize(size: number, events: RunEventRow[]): number {
  const text = events.reduce((sum, event) => sum + textOf(event), 0)
  return text > PAGE_TEXT_MAX ? Math.max(4, size >> 2) : Math.min(PAGE, size * 2)
}

/** Only what agents say is long; the other payloads are a few fields. */
function textOf({ payload }: RunEventRow): number {
  const text =
    typeof payload === 'object' && payload !== null && 'text' in payload ? payload.text : ''
  return typeof text === 'string' ? text.length : 0
}

const matches = (scope: EventScope, event: RunEventRow): boolean =>
  (scope.run_id === undefined || scope.run_id === event.run_id) &&
  (scope.conversation_id === undefined || scope.conversation_id === event.conversation_id)
