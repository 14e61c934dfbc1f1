import { type ChildProcess, spawn } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'
import { EventSource } from 'eventsource'
import type { Page } from 'playwright-core'
import { sseParser } from './sse.ts'

/** An event stream as somebody else's program reads it, with that program's own way of coming back. */
export interface StreamClient {
  /** Ids and data as they came, repeated ones twice. */
  seen(): Promise<SeenEvent[]> | SeenEvent[]
  /** How often the stream was opened. */
  opened(): Promise<number> | number
  /** `bye` and `reset` frames, in order. */
  notices(): Promise<string[]> | string[]
  close(): Promise<void> | void
}

export interface SeenEvent {
  readonly id: string
  readonly data: string
}

interface Address {
  readonly url: string
  readonly token: string
}

const NOTICES = ['bye', 'reset'] as const

/** The npm package `eventsource`: it reconnects by itself; the token goes with each of its requests. */
export const packageClient = ({ url, token }: Address) => {
  const seen: SeenEvent[] = []
  const notices: string[] = []
  let opened = 0
  let refused: number | undefined
  const source = new EventSource(url, {
    fetch: (input, init) =>
      fetch(input, { ...init, headers: { ...init.headers, authorization: `Bearer ${token}` } }),
  })
  source.addEventListener('open', () => {
    opened += 1
  })
  source.addEventListener('message', ({ lastEventId, data }) =>
    seen.push({ id: lastEventId, data: String(data) }),
  )
  source.addEventListener('error', ({ code }) => {
    if (source.readyState === source.CLOSED) refused = code
  })
  for (const name of NOTICES) source.addEventListener(name, () => notices.push(name))
  return {
    seen: () => seen,
    opened: () => opened,
    notices: () => notices,
    /** The status that made it give up, if it has. */
    refused: () => refused,
    close: () => source.close(),
  } satisfies StreamClient & { refused(): number | undefined }
}

/** The EventSource of Chromium, in a page of the service's origin that has a session. Its cookie is the only credential. */
export const browserClient = async (page: Page, path: string): Promise<StreamClient> => {
  await page.evaluate(`{
    const kept = (window.kept = { seen: [], notices: [], opened: 0 })
    const source = (window.source = new EventSource(${JSON.stringify(path)}))
    source.addEventListener('open', () => (kept.opened += 1))
    source.addEventListener('message', (e) => kept.seen.push({ id: e.lastEventId, data: e.data }))
    for (const name of ${JSON.stringify(NOTICES)})
      source.addEventListener(name, () => kept.notices.push(name))
  }`)
  return {
    seen: () => page.evaluate<SeenEvent[]>('kept.seen'),
    opened: () => page.evaluate<number>('kept.opened'),
    notices: () => page.evaluate<string[]>('kept.notices'),
    // It ends with its page.
    close: () => {},
  }
}

/** `curl -N`, started again by hand with the last id whenever it ends, until it is closed. */
export const curlClient = ({ url, token }: Address): StreamClient => {
  const seen: SeenEvent[] = []
  const notices: string[] = []
  let opened = 0
  let closed = false
  let curl: ChildProcess | undefined

  const once = async (): Promise<void> => {
    const last = seen.at(-1)?.id
    const headers = [`Authorization: Bearer ${token}`, ...(last ? [`Last-Event-ID: ${last}`] : [])]
    const child = spawn('curl', ['-sSN', '--fail', ...headers.flatMap((one) => ['-H', one]), url])
    curl = child
    const parse = sseParser()
    let talks = false
    child.stdout.on('data', (chunk: Buffer) => {
      if (!talks) opened += 1
      talks = true
      for (const { id, event, data } of parse(chunk)) {
        if (id !== undefined) seen.push({ id, data: data ?? '' })
        if (event !== undefined) notices.push(event)
      }
    })
    await new Promise((resolve) => child.once('close', resolve))
  }
  const done = (async () => {
    while (!closed) {
      await once()
      // Refused at once while nobody serves: a person at a terminal would not be faster.
      if (!closed) await pause(100)
    }
  })()
  return {
    seen: () => seen,
    opened: () => opened,
    notices: () => notices,
    close: async () => {
      closed = true
      curl?.kill('SIGKILL')
      await done
    },
  }
}
