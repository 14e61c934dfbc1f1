import type { ReadableStreamReadResult } from 'node:stream/web'
import { setTimeout as pause } from 'node:timers/promises'
import type { Random } from './random.ts'

/** One block of an event stream as it came: only the fields it had. A block may hold a comment alone. */
export type SseFrame = {
  readonly id?: string
  readonly event?: string
  /** Lines joined by `\n`. */
  readonly data?: string
  /** Without the colon and the space after it: `heartbeat`. */
  readonly comment?: string
  /** Milliseconds. */
  readonly retry?: number
}

export type SseOptions = {
  /** The whole address, query included. */
  readonly url: string
  readonly token?: string
  readonly lastEventId?: string | undefined
  readonly signal?: AbortSignal | undefined
}

/** `close()` disconnects at once and ends a pending `next()`; leaving a `for await` loop does it too. */
export type SseStream = AsyncIterableIterator<SseFrame> & { close(): void }

/** The stream was refused; `status` and `body` are the answer's. */
export class SseRefused extends Error {
  override readonly name = 'SseRefused'
  readonly status: number
  readonly body: string

  constructor(status: number, body: string) {
    super(`the event stream was refused with ${status}: ${body.slice(0, 500)}`)
    this.status = status
    this.body = body
  }
}

/**
 * Follows an event stream. It connects at the first `next()`, and ends when the server ends it, or by
 * `close()` or `signal`.
 *
 * @throws {SseRefused} on any other answer than 200 with an event stream; whatever `fetch` throws when
 *   the connection breaks.
 */
export const readSse = (options: SseOptions): SseStream => {
  const closing = new AbortController()
  const signal = AbortSignal.any([closing.signal, ...(options.signal ? [options.signal] : [])])
  const frames = framesOf(options, signal)
  const done: IteratorReturnResult<undefined> = { done: true, value: undefined }

  const next = async (): Promise<IteratorResult<SseFrame>> => {
    try {
      // A generator's own return() waits for a pending next(), so the end is decided out here.
      const result = signal.aborted ? done : await frames.next()
      return signal.aborted ? done : result
    } catch (error) {
      if (signal.aborted) return done
      throw error
    }
  }
  const close = (): void => closing.abort()
  const stream: SseStream = {
    next,
    close,
    return: () => {
      close()
      return Promise.resolve(done)
    },
    [Symbol.asyncIterator]: () => stream,
  }
  return stream
}

async function* framesOf(options: SseOptions, signal: AbortSignal): AsyncGenerator<SseFrame> {
  const headers = new Headers({ accept: 'text/event-stream' })
  if (options.token !== undefined) headers.set('authorization', `Bearer ${options.token}`)
  if (options.lastEventId !== undefined) headers.set('last-event-id', options.lastEventId)
  const response = await fetch(options.url, { headers, signal })
  const type = response.headers.get('content-type') ?? ''
  if (response.status !== 200 || response.body === null || !type.startsWith('text/event-stream')) {
    throw new SseRefused(response.status, await response.text())
  }

  const parse = sseParser()
  const reader = response.body.getReader()
  for (;;) {
    const { done, value }: ReadableStreamReadResult<Uint8Array> = await reader.read()
    if (done) return
    yield* parse(value)
  }
}

/**
 * Turns bytes into frames, however the chunks are cut; a block that its blank line has not closed is
 * kept for the next chunk, and lost with the stream, as the standard wants.
 */
export const sseParser = (): ((chunk: Uint8Array) => SseFrame[]) => {
  const decoder = new TextDecoder('utf-8') // drops a byte order mark
  let rest = ''
  let skipLineFeed = false
  let lines: string[] = []

  const endLine = (line: string, frames: SseFrame[]): void => {
    if (line !== '') {
      lines.push(line)
      return
    }
    if (lines.length > 0) frames.push(frameOf(lines))
    lines = []
  }

  return (chunk) => {
    const frames: SseFrame[] = []
    let text = decoder.decode(chunk, { stream: true })
    if (text === '') return frames
    // "\r" ends a line by itself; the "\n" of a pair may come with the next chunk.
    if (skipLineFeed && text.startsWith('\n')) text = text.slice(1)
    skipLineFeed = text === '' ? false : text.endsWith('\r')
    const parts = (rest + text).split(/\r\n|\r|\n/)
    rest = parts.pop() ?? ''
    for (const line of parts) endLine(line, frames)
    return frames
  }
}

const frameOf = (lines: readonly string[]): SseFrame => {
  const frame: { -readonly [K in keyof SseFrame]: SseFrame[K] } = {}
  const append = (field: 'data' | 'comment', value: string): void => {
    const before = frame[field]
    frame[field] = before === undefined ? value : `${before}\n${value}`
  }
  for (const line of lines) {
    const colon = line.indexOf(':')
    const name = colon === -1 ? line : line.slice(0, colon)
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '')
    if (colon === 0) append('comment', value)
    else if (name === 'data') append('data', value)
    else if (name === 'id' && !value.includes('\0')) frame.id = value
    else if (name === 'event') frame.event = value
    else if (name === 'retry' && /^\d+$/.test(value)) frame.retry = Number(value)
  }
  return frame
}

/**
 * Reads until `predicate` holds for a frame, and answers all frames read, that one last. The stream
 * stays open for more.
 *
 * @throws when the time is up or the stream ends before; the message shows the last frames. The stream
 *   is closed then.
 */
export const collectUntil = async (
  frames: SseStream,
  predicate: (frame: SseFrame, all: readonly SseFrame[]) => boolean,
  timeoutMs = 10_000,
): Promise<SseFrame[]> => {
  const all: SseFrame[] = []
  const fail = (what: string): Error => {
    const shown = all.slice(-5).map((frame) => JSON.stringify(frame))
    return new Error(`${what}, ${all.length} frames were read, last\n${shown.join('\n')}`)
  }

  let late = false
  const timer = setTimeout(() => {
    late = true
    frames.close()
  }, timeoutMs)
  try {
    for (;;) {
      const { done, value } = await frames.next()
      if (late) throw fail(`the awaited frame did not come within ${timeoutMs} ms`)
      if (done === true) throw fail('the stream ended')
      all.push(value)
      if (predicate(value, all)) return all
    }
  } catch (error) {
    frames.close()
    throw error
  } finally {
    clearTimeout(timer)
  }
}

/**
 * Reads as a browser on a bad line does: after a random number of events it disconnects and comes back
 * with the last id as `Last-Event-ID`, until `until` holds. A service that is away (restarting, 5xx) is
 * asked again until the time is up.
 *
 * Ids are collected as they came, repeated ones twice, so that a test can prove there are none.
 *
 * @throws {SseRefused} on a 4xx answer; an error that names the random seed when the time is up.
 */
export const followWithReconnects = async (options: FollowOptions): Promise<Followed> => {
  const { random, until, maxEvents = 10, timeoutMs = 20_000 } = options
  const followed: Followed = { ids: [], events: [], connections: 0, resets: 0 }
  const limit = AbortSignal.timeout(timeoutMs)
  let lastEventId = options.lastEventId
  let failure: unknown

  while (!limit.aborted) {
    const stream = readSse({ url: options.url, token: options.token, lastEventId, signal: limit })
    let left = 1 + random.int(maxEvents)
    followed.connections += 1
    try {
      for await (const frame of stream) {
        if (frame.event === 'reset') followed.resets += 1
        if (frame.id === undefined) continue
        lastEventId = frame.id
        followed.ids.push(frame.id)
        followed.events.push(frame)
        if (until(frame, followed)) return followed
        left -= 1
        if (left === 0) break
      }
      // The server's own end: asked again at once, it would end again at once.
      if (left > 0) await pause(20)
    } catch (error) {
      if (error instanceof SseRefused && error.status < 500) throw error
      failure = error
      await pause(50)
    }
  }
  const count = `${followed.ids.length} ids, ${followed.connections} connections`
  throw new Error(
    `the awaited event did not come within ${timeoutMs} ms (seed ${random.seed}, ${count})`,
    { cause: failure },
  )
}

export type FollowOptions = {
  readonly url: string
  readonly token: string
  readonly random: Random
  readonly until: (frame: SseFrame, soFar: Readonly<Followed>) => boolean
  readonly lastEventId?: string
  /** The most events read on one connection. Default: 10. */
  readonly maxEvents?: number
  /** Default: 20,000. */
  readonly timeoutMs?: number
}

export type Followed = {
  readonly ids: string[]
  /** The frames that had an id, in order of arrival. */
  readonly events: SseFrame[]
  connections: number
  /** `event: reset` frames. */
  resets: number
}
