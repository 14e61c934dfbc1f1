import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { systemClock } from '../../src/clock.ts'
import type { Line } from '../../src/store/database.ts'
import { type Database, openDatabase } from '../../src/store/database.ts'
import { migrate } from '../../src/store/migrate.ts'
import { Lease } from '../../src/runtime/lease.ts'
import { play } from '../support/scenario.ts'
import { startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startReplica } from '../support/in-process.ts'
import { startTcpProxy, type TcpProxy, upstreamOf } from '../support/tcp-proxy.ts'

const url = await freshDatabase()
let observer: Database
beforeAll(async () => {
  observer = openDatabase({ url, notifies: false })
  await migrate(observer.reads)
})
afterAll(() => observer.close())

let proxy: TcpProxy
let line: Line
let database: Database
let lease: Lease
/** What the node takes for the time; only a test moves it. */
let now: number
let lost: number[]
/** Statements so far. */
let sent: number
beforeEach(async () => {
  proxy = await startTcpProxy(upstreamOf(url))
  database = openDatabase({ url: proxy.url(url), notifies: false })
  sent = 0
  line = {
    get sql() {
      sent += 1
      return database.leases.sql
    },
    replace: () => database.leases.replace(),
    close: () => database.leases.close(),
  }
  now = 1_000
  lost = []
})
afterEach(async () => {
  proxy.resume()
  proxy.refuse(false)
  await lease.stop()
  await database.close()
  await proxy.close()
})

const leaseOf = (leaseMs: number): Lease => {
  lease = new Lease({
    line,
    nodeId: 'tested',
    version: '0',
    leaseMs,
    monotonicMs: () => now,
    onLost: (epoch) => lost.push(epoch),
    onAway: () => {},
    onBack: () => {},
    onError: () => {},
  })
  return lease
}
const deadline = (): number => new Float64Array(lease.shared)[0] ?? 0

describe('the deadline of a lease', () => {
  test('counts from before the registration was sent, however late the answer comes', async () => {
    leaseOf(60_000)
    proxy.pause()
    const starting = lease.start()
    await eventually(() => proxy.open() > 0)
    now = 41_000
    proxy.resume()
    await starting
    expect(deadline()).toBe(61_000)
    now = 60_999
    expect(lease.held).toBe(true)
    now = 61_000
    expect(lease.held).toBe(false)
  })

  test('counts from before a renewal was sent as well', async () => {
    leaseOf(6_000)
    await lease.start()
    now = 2_000
    proxy.pause()
    const before = sent
    await eventually(() => sent > before)
    now = 3_000
    proxy.resume()
    await eventually(() => deadline() > 7_000)
    expect(deadline()).toBe(8_000)
  })

  test('always ends before that of the database', async () => {
    leaseOf(30_000)
    const before = Date.now()
    await lease.start()
    const [row] = await observer.reads<{ lease_until: string }[]>`
      select lease_until from runlane.nodes where epoch = ${lease.epoch}`
    expect(Date.parse(row?.lease_until ?? '')).toBeGreaterThanOrEqual(before + deadline() - 1_000)
  })
})

describe('a lease that has run out', () => {
  test('is waited for until it is renewed, and no longer', async () => {
    leaseOf(300)
    await lease.start()
    proxy.refuse(true)
    proxy.cutAll()
    now = 10_000
    expect(lease.held).toBe(false)
    let released = false
    const waiting = lease.whenHeld().then(() => {
      released = true
    })
    const refused = proxy.refused()
    await eventually(() => proxy.refused() > refused + 1)
    await eventually(() => lease.reachableForMs === 0)
    expect(released).toBe(false)

    proxy.refuse(false)
    await waiting
    expect(lease.held).toBe(true)
    expect(lost).toEqual([])
  })

  test('is registered anew, under another epoch, where the node was declared dead', async () => {
    leaseOf(300)
    await lease.start()
    const { epoch } = lease
    await observer.reads`update runlane.nodes set status = 'dead' where epoch = ${epoch}`
    await eventually(() => lost.length > 0)
    expect(lost).toEqual([lease.epoch])
    expect(lease.epoch).toBeGreaterThan(epoch)
    expect(lease.held).toBe(true)
    const rows = await observer.reads`select status from runlane.nodes where epoch = ${epoch}`
    expect(rows).toEqual([{ status: 'dead' }])
  })

  test('is given back at the end', async () => {
    leaseOf(60_000)
    await lease.start()
    await lease.stop()
    expect(lease.held).toBe(false)
    expect(deadline()).toBe(0)
  })
})

test(
  'no effect starts while the lease is not held, and it starts once it is',
  { timeout: 60_000 },
  async () => {
    leaseOf(60_000)
    const effects = await startEffectServer()
    let offset = 0
    const clock = { ...systemClock, monotonicMs: () => performance.now() + offset }
    // Only the lease has lost its database: records are still written.
    const replica = await startReplica(url, { clock, leaseMs: 900, leaseUrl: proxy.url(url) })
    try {
      const { api, post, tells, ends } = play(replica, 20_000)
      const call = { http: effects.url, effects: 'idempotent' }
      const calling = await post([{ step: 'begun' }, { think: 300 }, call])
      const speaking = await post([{ step: 'begun' }, { think: 900 }, { say: 'later' }])
      for (const run of [calling, speaking]) await tells(run, 'step_finished')
      proxy.pause()
      // As after a freeze: the clock has run on, and nobody has renewed the lease.
      offset = 3_600_000
      await tells(speaking, 'message')
      expect((await api.get('/readyz')).body).toMatchObject({ database: true, lease: false })
      expect(effects.calls).toHaveLength(0)

      proxy.resume()
      expect(await ends(calling)).toMatchObject({ status: 'completed' })
      expect(effects.calls).toHaveLength(1)
    } finally {
      proxy.resume()
      replica.die()
      await effects.close()
    }
  },
)
