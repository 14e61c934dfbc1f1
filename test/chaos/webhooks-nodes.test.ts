import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { expect, test } from 'vitest'
import { scripted } from '../http/setup.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { seeded } from '../support/random.ts'
import type { Service } from '../support/service.ts'
import { receiverFor, signingNodes } from '../support/webhook-stage.ts'

test('two nodes deliver each notice once', async () => {
  const receiver = await receiverFor({ '/': [{ status: 204, afterMs: 5 }] })
  const urls = { RUNLANE_WEBHOOK_URLS: `${receiver.url}/` }
  const { services, databaseUrl } = await signingNodes(2, 'postgres', urls)
  const sql = postgres(databaseUrl ?? '', { max: 1 })
  const batch = Array.from({ length: 150 }, () => scripted([{ step: 'a' }]))
  const made = await Promise.all(services.map((service) => api(service).createBatch(batch)))

  const attempts = eventually(
    async () => {
      const [row] = await sql`select count(*) filter (where outcome = 'delivered')::int as done,
        sum(attempts)::int as attempts from runlane.webhook_deliveries`
      return row?.['done'] === 300 && Number(row['attempts'])
    },
    { timeoutMs: 25_000 },
  )

  expect(await attempts).toBe(300)
  await sql.end()
  const subjects = receiver.deliveries.map(({ event }) => event.subject)
  expect(subjects).toHaveLength(300)
  expect(new Set(subjects)).toEqual(new Set(made.flat().map(({ run_id }) => run_id)))
}, 60_000)

test('nodes that are killed at random moments lose no notice of runs that end', async () => {
  const seed = Date.now() % 1_000_000
  const random = seeded(seed)
  const receiver = await receiverFor({ '/': [{ status: 204, afterMs: 20 }] })
  const urls = { RUNLANE_WEBHOOK_URLS: `${receiver.url}/` }
  const { services } = await signingNodes(2, 'postgres', urls)
  const runs: string[] = []
  const steps = [
    { step: 'a', ms: 20 },
    { tool: 't', ms: 50, effects: 'none' },
  ]
  const batch = Array.from({ length: 50 }, () => scripted(steps))
  for (let kill = 0; kill < 4; kill += 1) {
    const nth = kill % 2
    const made = await api(services[1 - nth] as Service).createBatch(batch)
    runs.push(...made.map(({ run_id }) => run_id))
    await pause(random.int(400))
    const killed = services[nth] as Service
    await killed.kill()
    services[nth] = await killed.restart()
  }

  const told = () => new Set(receiver.deliveries.map(({ event }) => event.subject))
  await eventually(() => told().size === runs.length, {
    timeoutMs: 60_000,
    message: () => `${told().size} of ${runs.length} notices (seed ${seed})`,
  })
  for (const { event } of receiver.deliveries) expect(event.type).toBe('runlane.run.completed')
}, 90_000)
