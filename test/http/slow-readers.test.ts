import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { expect, onTestFinished, test } from 'vitest'
import type { RunEvent } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { collectUntil, readSse, type SseFrame, sseParser } from '../support/sse.ts'
import { scripted, serve } from './setup.ts'

const { service, createBatch, waitForRun } = await serve('postgres', {
  env: { RUNLANE_BODY_LIMIT: '32mb' },
})

const READERS = 50
const RUNS = 60
/** Each run streams this many chunks of this size: about 25 MB of events in all. */
const CHUNKS = 40
const CHUNK = 5_000

const MB = 1_000_000

const residentBytes = (): number => {
  const [, kb = '0'] =
    /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${service.pid}/status`, 'utf8')) ?? []
  return Number(kb) * 1024
}

/** A reader that asks for all events and takes only the first bytes of the answer until told to go on. */
const stalledReader = async (): Promise<Socket> => {
  const { port } = new URL(service.url)
  const socket = connect(Number(port), '127.0.0.1')
  onTestFinished(() => void socket.destroy())
  const lines = [
    'GET /agent-events?visibility=internal HTTP/1.0',
    'Host: 127.0.0.1',
    `Authorization: Bearer ${service.token}`,
  ]
  socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  await new Promise((resolve) => socket.once('readable', resolve))
  return socket
}

/** The text after the head of the answer, as far as it has come; the socket is read from now on. */
const drained = (socket: Socket): (() => SseFrame[]) => {
  const parse = sseParser()
  const frames: SseFrame[] = []
  let head: Buffer | null = Buffer.alloc(0)
  socket.on('data', (chunk: Buffer) => {
    if (head === null) {
      frames.push(...parse(chunk))
      return
    }
    head = Buffer.concat([head, chunk])
    const end = head.indexOf('\r\n\r\n')
    if (end === -1) return
    frames.push(...parse(head.subarray(end + 4)))
    head = null
  })
  return () => frames
}

test(
  'stalled readers delay nobody, cost no memory, and are told when they have missed something',
  { timeout: 120_000 },
  async () => {
    const stalled = await Promise.all(Array.from({ length: READERS }, stalledReader))
    const before = residentBytes()
    const url = `${service.url}/agent-events?visibility=internal`
    const live = readSse({ url, token: service.token })
    onTestFinished(() => live.close())

    const text = 'x'.repeat(CHUNK * CHUNKS)
    const made = await createBatch(
      Array.from({ length: RUNS }, () => scripted([{ say: text, chunks: CHUNKS }, { return: 1 }])),
    )
    const left = new Set(made.map((run) => run.run_id))
    let received = 0
    const frames = await collectUntil(
      live,
      ({ data }) => {
        received += data?.length ?? 0
        const event: RunEvent = JSON.parse(data ?? '{"payload":{}}')
        if (event.payload.to === 'completed') left.delete(event.run_id)
        return left.size === 0
      },
      90_000,
    )

    const ids = frames.flatMap(({ id }) => (id === undefined ? [] : [Number(id)]))
    expect(ids).toEqual([...new Set(ids)].toSorted((a, b) => a - b))
    expect(received).toBeGreaterThan(20 * MB)
    // Kept for each of them, the events would be far more than all that the service may use.
    const grown = residentBytes() - before
    expect(received * READERS).toBeGreaterThan(1_000 * MB)
    expect(grown).toBeLessThan(600 * MB)
    await Promise.all(made.map(({ run_id }) => waitForRun(run_id)))

    const [first] = stalled
    if (!first) throw new Error('there is no reader')
    const read = drained(first)
    const last = ids.at(-1) ?? 0
    await eventually(
      () => read().some(({ id, event }) => event === 'reset' || Number(id) >= last),
      { timeoutMs: 30_000, message: 'the end or a reset' },
    )
    const seen = read().flatMap(({ id }) => (id === undefined ? [] : [Number(id)]))
    expect(seen.length).toBeGreaterThan(0)
    expect(seen).toEqual(ids.slice(0, seen.length))
    expect((await fetch(`${service.url}/healthz`)).status).toBe(200)
  },
)
