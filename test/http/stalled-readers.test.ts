import type { Socket } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { expect, onTestFinished, test } from 'vitest'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { distribution, LagControl } from '../support/lag.ts'
import { type Service, startService } from '../support/service.ts'
import { readSse } from '../support/sse.ts'
import { drained, residentBytes, stalledReader, unsentBytes } from '../support/stalled-readers.ts'
import { scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
const start = async (env: Record<string, string>): Promise<Service> => {
  const service = await startService({ databaseUrl, env })
  onTestFinished(async () => void (await service.kill()))
  return service
}

const MB = 1_000_000
const READERS = 500
/** An event reaches a reader that reads within this time of its commit. */
const BOUND_MS = 100
/** Streams 1 MB in 200 events. */
const TALKS = Array.from({ length: 5 }, () => scripted([{ say: 'x'.repeat(200_000), chunks: 40 }]))
/** A dozen events of a usual size each. */
const WORKS = Array.from({ length: 5 }, () =>
  scripted([{ say: 'Looking that up…', chunks: 3 }, { tool: 't' }, { return: 1 }]),
)

const stall = async (service: Service, count: number): Promise<Socket[]> => {
  const sockets: Socket[] = []
  onTestFinished(() => sockets.forEach((socket) => void socket.destroy()))
  for (let n = 0; n < count; n += 1) sockets.push(await stalledReader(service))
  return sockets
}

/** Talks until nothing more fits between the service and any of these readers: from then on they are stalled. */
const fill = async (service: Service, sockets: Socket[], talk: () => Promise<unknown>) => {
  const look = (): number[] => {
    const unsent = unsentBytes(service)
    return sockets.map(({ localPort = 0 }) => unsent.get(localPort) ?? 0)
  }
  let before = look()
  await eventually(
    async () => {
      await talk()
      const now = look()
      const isFull = now.every((bytes, n) => bytes > 0 && bytes === before[n])
      before = now
      return isFull
    },
    { timeoutMs: 90_000, message: 'a standstill of all stalled readers' },
  )
}

/** Reads everything after the cursor, as it comes. */
const follow = (service: Service, cursor: number, onEvent: (id: number) => void = () => {}) => {
  const url = `${service.url}/agent-events?visibility=internal`
  const stream = readSse({ url, token: service.token, lastEventId: String(cursor) })
  onTestFinished(() => stream.close())
  const ids: number[] = []
  const reading = (async () => {
    for await (const { id } of stream) {
      if (id === undefined) continue
      ids.push(Number(id))
      onEvent(Number(id))
    }
  })()
  reading.catch(() => {})
  const reach = (last: number): Promise<unknown> =>
    eventually(() => (ids.at(-1) ?? 0) >= last, {
      timeoutMs: 60_000,
      message: () => `the event ${last}, after ${ids.at(-1)},`,
    })
  return { ids, reach }
}

test(
  'beside 500 stalled readers each event reaches a reader within 100 ms, and they cost bounded memory',
  { timeout: 180_000 },
  async () => {
    const service = await start({ RUNLANE_BODY_LIMIT: '32mb' })
    const { get, createBatch, waitForRun } = api(service)
    const sql = postgres(databaseUrl, { max: 2 })
    onTestFinished(() => sql.end())
    const lastId = async (): Promise<number> => (await get('/runs?limit=1')).body.cursor
    const run = async (bodies: readonly unknown[]): Promise<void> => {
      for (const { run_id } of await createBatch(bodies)) await waitForRun(run_id)
    }
    const atStart = residentBytes(service)
    const sockets = await stall(service, READERS)
    await fill(service, sockets, () => run(TALKS))
    const whenFull = residentBytes(service)
    const cursor = await lastId()

    // Paced: what is measured is the way to the reader, not how a saturated machine queues its work.
    const control = new LagControl(async () => {
      const [row] = await sql<{ id: string }[]>`select max(id) as id from runlane.agent_events`
      return Number(row?.id)
    })
    const fast = follow(service, cursor, (id) => control.arrived(id))
    for (let n = 0; n < 40; n += 1) await Promise.all([run(WORKS), pause(100)])
    await fast.reach(await lastId())
    const lags = await control.lags()
    const judged = lags.filter((lag) => lag.judged).map(({ ms }) => ms)
    process.stdout.write(
      `beside ${READERS} stalled readers, ${judged.length} of ${lags.length} events judged, ms from commit to reader: ${distribution(judged)}; all: ${distribution(lags.map(({ ms }) => ms))}\n`,
    )
    expect(lags.length).toBeGreaterThan(1_000)
    expect(judged.length).toBeGreaterThan(lags.length / 2)
    expect(Math.max(...judged)).toBeLessThan(BOUND_MS)

    // Kept for each of them, this would be 20 GB.
    for (let n = 0; n < 40; n += 1) await run(TALKS)
    const last = await lastId()
    await fast.reach(last)
    const grown = residentBytes(service) - whenFull
    process.stdout.write(`${Math.round(whenFull / MB)} MB, then ${Math.round(grown / MB)} more\n`)
    expect(whenFull - atStart).toBeLessThan(READERS * 2 * MB)
    expect(grown).toBeLessThan(1_000 * MB)
    const all = await sql<{ id: string }[]>`
      select id from runlane.agent_events where id > ${cursor} and id <= ${last} order by id`
    expect(fast.ids.slice(0, all.length)).toEqual(all.map(({ id }) => Number(id)))

    // Who reads again gets what was held for them, in order, and is told that the rest is gone.
    for (const socket of sockets.slice(0, 3)) {
      const read = drained(socket)
      await eventually(() => read().some(({ event }) => event === 'reset'), { timeoutMs: 30_000 })
      const seen = read().flatMap(({ id }) => (id === undefined ? [] : [Number(id)]))
      const log = await sql<{ id: string }[]>`
        select id from runlane.agent_events order by id limit ${seen.length}`
      expect(seen.length).toBeGreaterThan(100)
      expect(seen).toEqual(log.map(({ id }) => Number(id)))
    }
    for (const socket of sockets) socket.destroy()
    const after = follow(service, last)
    await run(WORKS)
    await after.reach(await lastId())
  },
)

test('a stalled reader is cut off, one that only has nothing to read is not', async () => {
  const service = await start({ RUNLANE_SSE_HEARTBEAT: '500ms' })
  const { get, createBatch, waitForRun } = api(service)
  const lastId = async (): Promise<number> => (await get('/runs?limit=1')).body.cursor
  const idle = follow(service, await lastId())
  const sockets = await stall(service, 3)
  const ports = sockets.map(({ localPort = 0 }) => localPort)
  const talk = async (): Promise<void> => {
    for (const { run_id } of await createBatch(TALKS)) await waitForRun(run_id)
  }
  for (let n = 0; n < 5; n += 1) await talk()

  await eventually(() => !ports.some((port) => unsentBytes(service).has(port)), {
    timeoutMs: 20_000,
    message: 'the end of the connections that nobody reads',
  })
  await talk()
  await idle.reach(await lastId())
})
