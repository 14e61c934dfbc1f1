import { isOutage, RunlaneError } from './errors.ts'
import { eventOf, Frames } from './frames.ts'
import { type Http, route } from './http.ts'
import { backOffMs, type Limit, limitOf, now, pause } from './time.ts'
import type { Run, RunEvent, Visibility } from './types.ts'

/** What to read: one run, one conversation, or (neither, for operators) everything. */
export type EventsScope =
  | { readonly runId: string; readonly conversationId?: never }
  | { readonly conversationId: string; readonly runId?: never }
  | { readonly runId?: never; readonly conversationId?: never }

export type EventsOptions = EventsScope & {
  /** Begin after this event id, such as the `cursor` of a list. Default: at the first event. */
  readonly after?: number | undefined
  /** The same by the `sequence` of a run; of one run only, and only without `after`. */
  readonly afterSequence?: number | undefined
  /** Default: `operator`, lowered by the service to what the role may read. */
  readonly visibility?: Visibility | undefined
  /** Ends the connection; the iteration throws its reason. */
  readonly signal?: AbortSignal | undefined
  /**
   * Silence after which a connection counts as dead, in milliseconds. Default 45,000: three of the service's heartbeats
   * (`RUNLANE_SSE_HEARTBEAT`, 15 s). Counts only while the iteration waits, not while you work on an event.
   */
  readonly heartbeatTimeoutMs?: number | undefined
  /** Instead of the client's: how long the service may be away before the iteration throws `unreachable`. */
  readonly outageMs?: number | undefined
  /**
   * The service cannot go on from the last event that you have (`event: reset`): it is purged, or belongs to another
   * database than now, or you read too slowly. Drop what you built from events, read it anew from a list, and answer
   * the id after which to go on (the list's `cursor`); 0 for the first event there is.
   * Default: the iteration throws `stream_reset`.
   */
  readonly onReset?: ((lastEventId: number | undefined) => number | Promise<number>) | undefined
  /** The connection is lost, and there will be a new one in so many milliseconds. For a line in a log. */
  readonly onDisconnect?: ((reason: string, retryInMs: number) => void) | undefined
}

/**
 * Events in the order of their ids, each once. `return()`, thus also leaving a `for await`, closes the connection, even
 * while a `next()` waits.
 */
export type EventStream = AsyncIterableIterator<RunEvent, undefined, undefined>

const HEARTBEAT_TIMEOUT_MS = 45_000
const BACK_OFF_MS = 500
const BACK_OFF_MS_MAX = 15_000
/** A connection that lasted so long was a good one, even if it brought no event. */
const GOOD_MS = 10_000
const TERMINAL: ReadonlySet<unknown> = new Set(['completed', 'failed', 'cancelled', 'timed_out'])

export const isTerminal = ({ status }: Pick<Run, 'status'>): boolean => TERMINAL.has(status)

/** How a connection came to its end. `ended`: properly, by the other side. */
type End =
  | { readonly kind: 'ended'; readonly empty: boolean }
  | { readonly kind: 'bye' | 'reset' }
  | { readonly kind: 'cut'; readonly error: unknown }

/** Reads on from where the last connection ended, over as many connections as it takes. */
export function eventStream(http: Http, outageMs: number, options: EventsOptions): EventStream {
  const closing = new AbortController()
  const outer = options.signal
  const follow = (): void => closing.abort(outer?.reason)
  if (outer?.aborted) follow()
  else outer?.addEventListener('abort', follow, { once: true })

  const reader = new Reader(
    http,
    { ...options, outageMs: options.outageMs ?? outageMs },
    closing.signal,
  )
  const events = reader.read()
  const done: IteratorReturnResult<undefined> = { done: true, value: undefined }
  let closed = false
  const stream: EventStream = {
    next: async () => {
      if (closed) return done
      try {
        const result = await events.next()
        if (result.done) outer?.removeEventListener('abort', follow)
        return result.done ? done : result
      } catch (error) {
        outer?.removeEventListener('abort', follow)
        // Closed while it waited.
        if (closed) return done
        throw error
      }
    },
    return: async () => {
      closed = true
      outer?.removeEventListener('abort', follow)
      // A generator takes its own return() only between two events: a read that waits has to be broken off.
      closing.abort()
      await events.return(undefined)
      return done
    },
    [Symbol.asyncIterator]: () => stream,
  }
  return stream
}

class Reader {
  readonly #http: Http
  readonly #options: EventsOptions & { readonly outageMs: number }
  readonly #signal: AbortSignal
  #last: number | undefined
  #afterSequence: number | undefined
  /** The last status change of the one run that is read was to a terminal one. */
  #over = false
  #failures = 0
  #aliveAt = now()
  #retryMs = BACK_OFF_MS

  constructor(
    http: Http,
    options: EventsOptions & { readonly outageMs: number },
    signal: AbortSignal,
  ) {
    this.#http = http
    this.#options = options
    this.#signal = signal
    this.#last = options.after
    this.#afterSequence = options.afterSequence
  }

  async *read(): AsyncGenerator<RunEvent, undefined> {
    let known = false
    this.#aliveAt = now()
    for (;;) {
      const end = yield* this.#connection()
      switch (end.kind) {
        case 'ended': {
          if (this.#options.runId === undefined) {
            await this.#stayAway('the stream ended')
            break
          }
          // Nothing more came although the run is over: the cursor was at its end already.
          if (this.#over || (end.empty && known)) return
          known = end.empty && (await this.#isTerminal(this.#options.runId))
          if (!known) await this.#stayAway('the stream ended')
          break
        }
        case 'bye':
          await this.#stayAway('the node stops', this.#retryMs)
          break
        case 'reset':
          await this.#reset()
          break
        case 'cut':
          await this.#stayAway(end.error)
          break
      }
    }
  }

  /** One connection, up to its end. @throws {RunlaneError} what is refused for good */
  async *#connection(): AsyncGenerator<RunEvent, End> {
    const limit = limitOf(this.#signal)
    const startedAt = now()
    let empty = true
    try {
      const chunks = (await this.#open(limit)).body?.getReader()
      const frames = new Frames((retryMs) => {
        this.#retryMs = Math.max(retryMs, 1)
      })
      for (;;) {
        const bytes = await this.#bytes(chunks, limit)
        if (bytes === undefined) return { kind: 'ended', empty }
        if (now() - startedAt > GOOD_MS) this.#failures = 0
        for (const frame of frames.take(bytes)) {
          if (frame.event === 'bye' || frame.event === 'reset') return { kind: frame.event }
          const event = eventOf(frame)
          if (event === undefined || event.id <= (this.#last ?? 0)) continue
          this.#note(event)
          empty = false
          yield event
        }
      }
    } catch (error) {
      this.#signal.throwIfAborted()
      if (isOutage(error)) return { kind: 'cut', error }
      throw error
    } finally {
      limit.end()
    }
  }

  async #open(limit: Limit): Promise<Response> {
    const { runId, conversationId, visibility } = this.#options
    const target =
      runId !== undefined
        ? route`/runs/${runId}/agent-events`
        : conversationId !== undefined
          ? route`/conversations/${conversationId}/agent-events`
          : '/agent-events'
    const ask = {
      method: 'GET',
      path: target,
      query: { visibility, after_sequence: this.#afterSequence },
      headers: {
        accept: 'text/event-stream',
        ...(this.#last === undefined ? {} : { 'last-event-id': String(this.#last) }),
      },
    } as const
    const response = await this.#http.open(ask, limit)
    if (response.headers.get('content-type')?.startsWith('text/event-stream')) return response
    const detail = `${target} answered with something that is no event stream`
    throw new RunlaneError({ status: response.status, code: 'unexpected_answer', detail })
  }

  /** The next piece, undefined at the end. @throws {RunlaneError} `unreachable` when the connection broke, or is dead */
  async #bytes(
    chunks: ReadableStreamDefaultReader<Uint8Array> | undefined,
    limit: Limit,
  ): Promise<Uint8Array | undefined> {
    // Time that the caller took for the last event is no silence of the service.
    this.#aliveAt = now()
    limit.start(this.#options.heartbeatTimeoutMs ?? HEARTBEAT_TIMEOUT_MS)
    try {
      const { done, value } = (await chunks?.read()) ?? { done: true }
      return done ? undefined : value
    } catch (cause) {
      const detail = limit.expired ? 'no heartbeat came' : `the connection broke: ${textOf(cause)}`
      throw new RunlaneError({ code: 'unreachable', detail, cause })
    } finally {
      limit.stop()
    }
  }

  #note({ id, event_type, payload }: RunEvent): void {
    this.#last = id
    this.#failures = 0
    if (event_type === 'run_status_changed') this.#over = TERMINAL.has(payload['to'])
  }

  async #isTerminal(runId: string): Promise<boolean> {
    const { outageMs } = this.#options
    const ask = { method: 'GET', path: route`/runs/${runId}`, signal: this.#signal } as const
    return isTerminal(await this.#http.json<Run>({ ...ask, outageMs }))
  }

  async #reset(): Promise<void> {
    const { onReset } = this.#options
    if (!onReset) {
      const detail = `the service cannot go on after event ${this.#last ?? 0}: read the state anew`
      throw new RunlaneError({ code: 'stream_reset', detail })
    }
    const after = await onReset(this.#last)
    this.#last = after > 0 ? after : undefined
    this.#afterSequence = undefined
    this.#over = false
    await this.#stayAway('the stream was reset')
  }

  /** @throws {RunlaneError} `unreachable` when the service has been away for too long */
  async #stayAway(error: unknown, exactMs?: number): Promise<void> {
    const { outageMs, onDisconnect } = this.#options
    const asked = error instanceof RunlaneError ? error.retryAfterMs : 0
    const backOff = backOffMs(this.#failures, this.#retryMs, BACK_OFF_MS_MAX)
    const waitMs = exactMs ?? Math.max(backOff, asked)
    const reason = textOf(error)
    this.#failures += 1
    const awayMs = Math.round(now() - this.#aliveAt)
    if (awayMs + waitMs > outageMs) {
      const detail = `${this.#http.options.url.origin} has been away for ${awayMs} ms: ${reason}`
      throw new RunlaneError({ code: 'unreachable', detail, cause: error })
    }
    onDisconnect?.(reason, Math.round(waitMs))
    await pause(waitMs, this.#signal)
  }
}

const textOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))
