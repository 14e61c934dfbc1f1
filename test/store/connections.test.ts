import { expect, test } from 'vitest'
import { openDatabase } from '../../src/store/database.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { startTcpProxy, upstreamOf } from '../support/tcp-proxy.ts'

const url = await freshDatabase()

test(
  'a network so slow that connections are given up while they are set up does not end the service',
  { timeout: 90_000 },
  async () => {
    const proxy = await startTcpProxy(upstreamOf(url))
    const env = { RUNLANE_LEASE: '2s' }
    const service = await startService({ databaseUrl: proxy.url(url), env })
    try {
      // Greeting and password take two round trips: the lease gives up in the middle of the next one.
      proxy.delay(410)
      proxy.cutAll()
      const before = proxy.accepted()
      let gone = false
      void service.exited.then(() => {
        gone = true
      })
      await eventually(() => gone || proxy.accepted() >= before + 6, { timeoutMs: 40_000 })
      proxy.delay(0)
      const { createRun, waitForRun } = api(service)
      const run = await eventually(
        () => createRun({ agent: 'scripted', input: { steps: [{ return: 'alive' }] } }),
        { timeoutMs: 20_000, message: () => `a run; it said ${service.stderr()}` },
      )
      expect(await waitForRun(run.run_id)).toMatchObject({ status: 'completed', output: 'alive' })
    } finally {
      await service.stop()
      await proxy.close()
    }
  },
)

test('arrays of text go to the database and come back as they are', async () => {
  const database = openDatabase({ url, notifies: false })
  const items = [
    'plain',
    '',
    'a,b',
    '{c}',
    'say "d"',
    String.raw`back\slash`,
    'NULL',
    'new\nline',
    'ü😀',
  ]
  for (const sent of [items, [], ['one']]) {
    const [row] = await database.reads<{ back: string[] }[]>`select ${sent}::text[] as back`
    expect(row?.back).toEqual(sent)
  }
  await database.close()
})
