import { afterAll, describe, expect, onTestFinished, test } from 'vitest'
import { api } from '../support/api.ts'
import { chromiumFound, launchChromium, logInPage } from '../support/chromium.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import {
  browserClient,
  curlClient,
  packageClient,
  type SeenEvent,
  type StreamClient,
} from '../support/stream-clients.ts'
import { scripted } from './setup.ts'

const databaseUrl = await freshDatabase()
let service = await startService({ databaseUrl, env: { RUNLANE_LEASE: '1s' } })
afterAll(() => service.kill())

const TALKING = [
  { tool: 'search', ms: 20, effects: 'idempotent' },
  { say: 'Words and words. '.repeat(60), chunks: 60, ms: 3_000 },
  { journal: { next_action: 'rest' } },
  { return: 1 },
]

/** All that follow the same stream: each with its own way of authenticating and of coming back. */
const openAll = async (path: string): Promise<Map<string, StreamClient>> => {
  const address = { url: service.url + path, token: service.token }
  const clients = new Map<string, StreamClient>([
    ['the npm package eventsource', packageClient(address)],
    ['curl -N with Last-Event-ID by hand', curlClient(address)],
  ])
  onTestFinished(async () => {
    for (const client of clients.values()) await client.close()
  })
  if (!chromiumFound) return clients
  const browser = await launchChromium()
  const page = await browser.newPage()
  onTestFinished(() => browser.close())
  await logInPage(page, service)
  return clients.set('an EventSource in Chromium, by its session', await browserClient(page, path))
}

const awaitSeen = async (
  client: StreamClient,
  what: string,
  done: (seen: SeenEvent[]) => boolean,
): Promise<void> => {
  let seen: SeenEvent[] = []
  await eventually(
    async () => {
      seen = await client.seen()
      return done(seen)
    },
    { timeoutMs: 30_000, message: () => `${what}, of ${seen.length} events seen,` },
  )
}

describe.each([
  ['killed', 'SIGKILL'],
  ['stopped', 'SIGTERM'],
] as const)('clients of a service that is %s in the middle of an answer', (way, signal) => {
  test(
    'see each event once and in order when it is started again',
    { timeout: 90_000 },
    async () => {
      const conversation_id = `clients of one ${way}`
      const clients = await openAll(
        `/conversations/${encodeURIComponent(conversation_id)}/agent-events`,
      )
      const post = async () => api(service).createRun(scripted(TALKING, { conversation_id }))
      const runs = [await post(), await post()]
      for (const [name, client] of clients)
        await awaitSeen(client, `the first words for ${name}`, (seen) => seen.length > 20)

      await service.kill(signal)
      service = await service.restart()
      runs.push(await post())
      const { waitForRun, events } = api(service)
      const ended = await Promise.all(
        runs.map(({ run_id }) => waitForRun(run_id, { timeoutMs: 60_000 })),
      )
      expect(ended.map(({ status }) => status)).toEqual(['completed', 'completed', 'completed'])

      const lists = runs.map(({ run_id }) => events(run_id, { visibility: 'operator' }))
      const all = (await Promise.all(lists)).flat().toSorted((a, b) => a.id - b.id)
      const last = String(all.at(-1)?.id)
      for (const [name, client] of clients) {
        await awaitSeen(client, `the last event for ${name}`, (seen) => seen.at(-1)?.id === last)
        const seen = await client.seen()
        expect(
          seen.map(({ id }) => Number(id)),
          name,
        ).toEqual(all.map(({ id }) => id))
        expect(
          seen.map(({ data }) => JSON.parse(data) as unknown),
          name,
        ).toEqual(all)
        // Each was interrupted, or nothing would be shown; one that is stopped says so before.
        expect(await client.opened(), name).toBeGreaterThan(1)
        expect(await client.notices(), name).toEqual(signal === 'SIGTERM' ? ['bye'] : [])
      }
    },
  )
})

test('a stream ends soon after its token was revoked, and its client is not let in again', async () => {
  const { post, request } = api(service)
  const made = await post('/api/v1/admin/tokens', { name: 'revoked', role: 'operator' })
  const { id, token } = made.body
  const client = packageClient({ url: `${service.url}/agent-events`, token })
  onTestFinished(() => client.close())
  await eventually(() => client.opened(), { message: 'the stream' })

  expect((await request('DELETE', `/api/v1/admin/tokens/${id}`)).status).toBe(204)
  await eventually(() => client.refused(), { message: 'the end of the stream and the refusal' })
  expect(client.refused()).toBe(401)
  expect(client.opened()).toBe(1)
})
