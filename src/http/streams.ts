import type { Context, Hono } from 'hono'
import { stream } from 'hono/streaming'
import type { StreamingApi } from 'hono/utils/stream'
import type { z } from 'zod'
import type { HttpBindings } from '@hono/node-server'
import { Refusal } from '../errors.ts'
import {
  cursorOfSequence,
  type EventScope,
  lastStatusSequence,
  logBounds,
  readEvents,
} from '../store/events.ts'
import { isTerminal, type RunEventRow, type RunStatus } from '../store/rows.ts'
import { findRun } from '../store/runs.ts'
import { type Identity, lowered } from './access/identity.ts'
import { invalid } from './body.ts'
import * as contract from './contract/streams.ts'
import { Routes } from './routes.ts'
import { existing, existingRun } from './run-of-path.ts'
import type { Service } from './service.ts'

/** A reader whose socket takes nothing for so many heartbeats is gone, as far as we can tell. */
const SILENT_BEATS = 4
/** Characters that are written to a reader at once, give or take an event. */
const WRITE_LENGTH = 64 * 1024

type Query = z.output<(typeof contract.streamEvents)['query']>

/** Live events as Server-Sent Events: of a run, of a conversation, of everything. */
export function streamRoutes(app: Hono, service: Service): void {
  const { node } = service
  new Routes(app, service)
    .on(contract.streamRunEvents, async ({ c, query, identity }) => {
      const { run_id } = await existing(service, c)
      if (query.run_id !== undefined && query.run_id !== run_id)
        throw invalid([{ path: 'run_id', message: 'must be the run of the path, or left out' }])
      return serve(c, query, identity, { run_id }, run_id)
    })
    .on(contract.streamConversationEvents, async ({ c, query, identity, params }) => {
      return serve(c, query, identity, { conversation_id: params.id })
    })
    .on(contract.streamEvents, async ({ c, query, identity }) => serve(c, query, identity, {}))

  async function serve(
    c: Context,
    query: Query,
    identity: Identity,
    scope: Omit<EventScope, 'visibility'>,
    ofRun?: string,
  ): Promise<Response> {
    const runId = ofRun ?? query.run_id
    if (ofRun === undefined && runId !== undefined) {
      const run = await existingRun(service, runId)
      // Nothing would ever come of it, and so nothing would end it.
      if ((scope.conversation_id ?? run.conversation_id) !== run.conversation_id)
        throw invalid([{ path: 'run_id', message: 'must be a run of the conversation' }])
    }
    const afterId = await cursorOf(c, query, runId)
    headersOf(c)
    // Nobody would read the stream of a HEAD, and so nothing would ever end it.
    if (c.req.method === 'HEAD') return c.body(null)
    const free = service.connections.take(identity.name)
    cutWhenStalled(c, service.sseHeartbeatMs * SILENT_BEATS, () => {
      service.node.feed.dropped.stalled += 1
    })
    return stream(c, async (out) => {
      const leave = node.readers.enter(runId === undefined ? scope : { run_id: runId })
      try {
        const wanted = {
          ...scope,
          ...(runId === undefined ? {} : { run_id: runId }),
          visibility: lowered(query.visibility, identity, true),
        }
        await new Stream({ service, c, out, scope: wanted, identity, runId }).run(afterId)
      } finally {
        leave()
        free()
      }
    })
  }

  /** Last-Event-ID, then after_event_id, then after_sequence (of a run only). @throws Refusal bad_request */
  async function cursorOf(c: Context, query: Query, runId: string | undefined): Promise<number> {
    const header = c.req.header('last-event-id')
    // A client that has seen nothing yet sends an empty header: no cursor.
    const text = header === undefined || header === '' ? query.after_event_id : header
    if (text !== undefined && text !== '') {
      if (!/^\d{1,15}$/.test(text))
        throw new Refusal('bad_request', 'the cursor is not an event id')
      return Number(text)
    }
    if (query.after_sequence === undefined || runId === undefined) return 0
    if (!/^\d{1,9}$/.test(query.after_sequence))
      throw new Refusal('bad_request', 'the cursor is not a sequence')
    const sequence = Number(query.after_sequence)
    const run = await findRun(service.reads, runId)
    // Ahead of the run is ahead of the log: answered with a reset.
    if (run && sequence > run.last_sequence) return Number.MAX_SAFE_INTEGER
    return cursorOfSequence(service.reads, runId, sequence)
  }
}

function headersOf(c: Context): void {
  c.header('content-type', 'text/event-stream; charset=utf-8')
  c.header('cache-control', 'no-cache, no-transform')
  c.header('x-accel-buffering', 'no')
}

/**
 * Ends the connection of a reader that takes nothing. Only the socket knows: what we write waits in front of it, and an
 * ended answer would wait there for ever too. Heartbeats keep the clock of a reader with nothing to read from running out.
 */
function cutWhenStalled(c: Context, timeoutMs: number, onCut: () => void): void {
  const { outgoing } = c.env as Partial<HttpBindings>
  // Reset, not closed: what the system holds for it, megabytes, would stay until it is read.
  outgoing?.setTimeout(timeoutMs, () => {
    onCut()
    outgoing.socket?.resetAndDestroy()
  })
}

interface Reader {
  service: Service
  c: Context
  out: StreamingApi
  scope: EventScope
  identity: Identity
  /** The stream of one run ends with it. */
  runId: string | undefined
}

/** One reader's connection. */
class Stream {
  #service: Service
  #c: Context
  #out: StreamingApi
  #scope: EventScope
  #identity: Identity
  #runId: string | undefined
  #ended = new AbortController()
  #writing = false

  constructor({ service, c, out, scope, identity, runId }: Reader) {
    this.#service = service
    this.#c = c
    this.#out = out
    this.#scope = scope
    this.#identity = identity
    this.#runId = runId
  }

  async run(afterId: number): Promise<void> {
    const { node, sseHeartbeatMs, log, access } = this.#service
    this.#out.onAbort(() => this.#ended.abort())
    const heartbeat = setInterval(() => void this.#beat(), sseHeartbeatMs)
    const vigil = access.vigil(this.#c)
    vigil.lost.addEventListener('abort', () => this.#ended.abort())
    try {
      // Proxies and clients see an open stream at once.
      await this.#write(': connected\n\n')
      if (await this.#replayedWhole(afterId)) return
      for await (const page of node.feed.read({
        scope: this.#scope,
        afterId,
        signal: this.#ended.signal,
      })) {
        if (page === 'reset') return await this.#write('event: reset\ndata: {}\n\n')
        const shown = page.filter((event) => this.#mayRead(event))
        for (const text of textsOf(shown)) await this.#write(text)
        if (await this.#isOver(page)) return
      }
      if (!this.#ended.signal.aborted) await this.#bye()
    } catch (error) {
      log.warn({ run_id: this.#runId, problem: String(error) }, 'an event stream ended')
    } finally {
      clearInterval(heartbeat)
      vigil.end()
      this.#ended.abort()
    }
  }

  /** The run ended before: whoever comes with the last cursor gets nothing more, and is told so by the end. */
  async #replayedWhole(afterId: number): Promise<boolean> {
    if (this.#runId === undefined || afterId === 0) return false
    const { reads } = this.#service
    const run = await findRun(reads, this.#runId)
    if (!run || !isTerminal(run.status)) return false
    if (afterId > (await logBounds(reads)).last) return false
    return (await readEvents(reads, this.#scope, afterId, 1)).length === 0
  }

  /** True after the last event of the one run that is read: its terminal status, unless it was resumed since. */
  async #isOver(page: RunEventRow[]): Promise<boolean> {
    const last = page.at(-1)
    if (this.#runId === undefined || last === undefined || !mayBeLast(last)) return false
    return last.sequence >= (await lastStatusSequence(this.#service.reads, this.#runId))
  }

  /** Of other callers' runs a service reads what users read. */
  #mayRead({ visibility, created_by }: RunEventRow): boolean {
    const { role, name } = this.#identity
    return role !== 'service' || visibility === 'user' || created_by === name
  }

  async #beat(): Promise<void> {
    // A write under way keeps the connection alive by itself, and a second one would only queue behind it.
    if (!this.#writing) await this.#write(': heartbeat\n\n')
  }

  /** Waits until the socket takes it: a slow reader is paced here, and costs what one page takes. */
  async #write(text: string): Promise<void> {
    this.#writing = true
    if (text !== '') await this.#out.write(text)
    this.#writing = false
  }

  /** The service stops: come back in a moment, spread out, to whoever serves then. */
  async #bye(): Promise<void> {
    const retryMs = 1000 + Math.floor(Math.random() * 2000)
    await this.#write(`event: bye\nretry: ${retryMs}\ndata: {}\n\n`)
  }
}

/** Nothing comes after a terminal status but what comes too late to count. */
function mayBeLast({ event_type, payload }: RunEventRow): boolean {
  if (event_type === 'late_result') return true
  return event_type === 'run_status_changed' && isTerminal((payload as { to: RunStatus }).to)
}

/** What waits for a slow socket is a few of these pieces, not a page of events of any size. */
function* textsOf(page: RunEventRow[]): Generator<string> {
  let text = ''
  for (const event of page) {
    text += frameOf(event)
    if (text.length < WRITE_LENGTH) continue
    yield text
    text = ''
  }
  if (text !== '') yield text
}

const frames = new WeakMap<RunEventRow, string>()

/** Readers of the tailer's ring share the events, so each is put into words once. */
function frameOf(event: RunEventRow): string {
  const known = frames.get(event)
  if (known !== undefined) return known
  const { id, event_type, run_id, conversation_id, sequence, visibility, payload, created_at } =
    event
  const data = JSON.stringify({
    id,
    event_type,
    run_id,
    conversation_id,
    sequence,
    visibility,
    payload,
    created_at,
  })
  const frame = `id: ${id}\ndata: ${data}\n\n`
  frames.set(event, frame)
  return frame
}
