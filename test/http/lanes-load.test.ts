import { describe, expect, onTestFinished, test } from 'vitest'
import type { RunEvent } from '../support/api.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { seeded } from '../support/random.ts'
import { type Followed, followWithReconnects } from '../support/sse.ts'
import { DATABASES, scripted, serveOnBoth } from './setup.ts'

const RUNS = 1_000
const LANES = 50
const READERS = 3

const served = await serveOnBoth()

const laneOf = (n: number): string => `lane-${n % LANES}`

describe.each(DATABASES)('on %s, 1,000 runs over 50 lanes posted at once', (database) => {
  const { createRun, createBatch, service } = served[database]

  const seenBy = async (seed: number): Promise<Followed> => {
    let ended = 0
    const isLast = (data: string | undefined): boolean => {
      const event: RunEvent = JSON.parse(data ?? '{}')
      if (event.event_type === 'run_status_changed' && event.payload.to === 'completed') ended += 1
      return ended === RUNS
    }
    return followWithReconnects({
      url: `${service.url}/agent-events?visibility=internal`,
      token: service.token,
      random: seeded(seed),
      until: (frame) => isLast(frame.data),
      maxEvents: 600,
      timeoutMs: 150_000,
    })
  }

  test(
    'all complete, one at a time per lane and in order; three readers that reconnect at random see each event once',
    { timeout: 200_000 },
    async () => {
      const effects = await startEffectServer()
      onTestFinished(() => effects.close())
      const bodyOf = (n: number) => {
        const body = { lane: laneOf(n), n, delay_ms: n % 7 }
        return scripted([{ step: 'before' }, { http: effects.url, body }], {
          lane_key: laneOf(n),
          owner: String(n),
        })
      }
      const seed = Date.now() % 1_000_000
      const random = seeded(seed)
      const readers = Array.from({ length: READERS }, (_, n) => seenBy(seed + n))

      // Half of them one by one, half in batches of up to 40; all posts are under way at once.
      const posts = random.shuffle(Array.from({ length: RUNS }, (_, n) => n))
      const work: Promise<unknown>[] = []
      while (posts.length > RUNS / 2) {
        const batch = posts.splice(0, Math.min(1 + random.int(40), posts.length - RUNS / 2))
        work.push(createBatch(batch.map(bodyOf)))
      }
      for (const n of posts) work.push(createRun(bodyOf(n)))
      await Promise.all(work)
      const followed = await Promise.all(readers)

      const message = `seed ${seed}`
      expect(effects.calls.length, message).toBe(RUNS)
      expect(effects.callsByKey().size, message).toBe(RUNS)
      expect(effects.overlaps(), message).toEqual([])

      const [first] = followed
      const ids = first?.ids.map(Number) ?? []
      expect(ids, message).toEqual([...new Set(ids)].toSorted((a, b) => a - b))
      for (const { ids: others, resets } of followed) {
        expect(resets, message).toBe(0)
        expect(others.map(Number), message).toEqual(ids)
      }
      const events: RunEvent[] = first?.events.map((frame) => JSON.parse(frame.data ?? '{}')) ?? []
      expectGapFree(events)

      // The log's order of creation is the order of arrival: that is how each lane has to run.
      const created = events.filter((event) => event.event_type === 'run_created')
      const lines = Map.groupBy(created, (event) => String(event.payload.lane_key))
      expect(lines.size).toBe(LANES)
      const ran = Map.groupBy(effects.calls, (call) => (call.body as { lane: string }).lane)
      for (const [lane, line] of lines) {
        const arrived = line.map((event) => event.run_id)
        const called = ran.get(lane)?.map((call) => call.idempotencyKey?.split(':')[0])
        expect(called, `${lane}, ${message}`).toEqual(arrived)
      }
      expect(service.stderr()).not.toMatch(/"level":"error"/)
    },
  )
})

const expectGapFree = (events: readonly RunEvent[]): void => {
  const runs = Map.groupBy(events, (event) => event.run_id)
  expect(runs.size).toBe(RUNS)
  for (const [run_id, own] of runs) {
    const sequences = own.map((event) => event.sequence)
    expect(sequences, run_id).toEqual(sequences.map((_, index) => index + 1))
    expect(own.at(-1)?.payload).toMatchObject({ to: 'completed' })
  }
}
