import { afterAll, expect, test } from 'vitest'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { startTcpProxy, upstreamOf } from '../support/tcp-proxy.ts'

/** For a probe that is asked every few seconds, and for a caller whose read was under way when the database fell silent. */
const PROBE_MS = 5_000
const READ_MS = 20_000

const databaseUrl = await freshDatabase()
const proxy = await startTcpProxy(upstreamOf(databaseUrl))
const service = await startService({ databaseUrl: proxy.url(databaseUrl) })
const { get } = api(service)
afterAll(async () => {
  await service.kill()
  await proxy.close()
})

test('a database that accepts everything and answers nothing is told of, and comes back by itself', async () => {
  const reads = () => Array.from({ length: 8 }, () => get('/runs?limit=1'))
  for (const { status } of await Promise.all(reads())) expect(status).toBe(200)
  expect((await get('/readyz')).body).toMatchObject({ status: 'ready', migrations: true })
  const ask = async (path: string, withinMs: number) => {
    const headers = { authorization: `Bearer ${service.token}` }
    const signal = AbortSignal.timeout(withinMs)
    return fetch(`${service.url}${path}`, { headers, signal })
  }

  proxy.pause()
  const waiting = Array.from({ length: 8 }, () => ask('/runs?limit=1', READ_MS))
  const probe = await ask('/readyz', PROBE_MS)

  expect(probe.status).toBe(503)
  expect(await probe.json()).toMatchObject({ status: 'not_ready', database: false })
  for (const answer of await Promise.all(waiting)) {
    expect(answer.status).toBe(503)
    expect(await answer.json()).toMatchObject({ code: 'database_unavailable' })
  }
  proxy.resume()
  await eventually(async () => (await get('/readyz')).status === 200, { timeoutMs: 20_000 })
  for (const { status } of await Promise.all(reads())) expect(status).toBe(200)
}, 60_000)
