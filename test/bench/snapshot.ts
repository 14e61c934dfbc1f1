/**
 * The snapshot of a busy service: `npm run bench:snapshot`. Service, Postgres (fsync on) and client on this one machine.
 *
 * Over 10,000 unfinished runs (in line, in their lanes, parked, active, parents and children) one snapshot a second, on an open
 * loop, while other runs are posted and end. Timed from when it was due to the last byte of its answer; the first one of each
 * connection is not counted.
 *
 * BENCH_OPEN (default 10000) runs, BENCH_RATE posts per second (20), BENCH_SECONDS (300), BENCH_LIMIT rows (500).
 */
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import postgres from 'postgres'
import { eventually } from '../support/eventually.ts'
import { createDatabase, startPostgres } from '../support/postgres.ts'
import { startService } from '../support/service.ts'
import { api } from '../support/api.ts'
import { cpuSeconds, percentile } from './measure.ts'

const OPEN = Number(process.env['BENCH_OPEN'] ?? 10_000)
const RATE = Number(process.env['BENCH_RATE'] ?? 20)
const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 300)
const LIMIT = Number(process.env['BENCH_LIMIT'] ?? 500)
const BATCH = 500
const PARENTS = 50
const ACTIVE = 100

const server = await startPostgres({})
const { url } = await createDatabase(server.url)
const sql = postgres(url, { max: 1, onnotice: () => {} })
const service = await startService({
  databaseUrl: url,
  env: { RUNLANE_CONCURRENCY: '1000', RUNLANE_RATE_LIMIT: '100000' },
})
const client = api(service)
const scripted = (steps: object[], more: object = {}) => ({
  agent: 'scripted',
  input: { steps },
  ...more,
})

try {
  await fill()
  await measure()
} finally {
  await service.kill()
  await sql.end()
  await server.remove()
}

async function fill(): Promise<void> {
  const think = { think: 3_600_000 }
  const child = { delegate: { agent: 'scripted', input: { steps: [think] } } }
  const busy = Array.from({ length: ACTIVE }, (_, nth) =>
    scripted([think], { lane_key: `lane-${nth}` }),
  )
  await client.createBatch(busy)
  await client.createBatch(Array.from({ length: PARENTS }, () => scripted([child])))
  const run_at = new Date(Date.now() + 86_400_000).toISOString()
  const rest = OPEN - ACTIVE - 2 * PARENTS
  for (let made = 0; made < rest; made += BATCH) {
    const size = Math.min(BATCH, rest - made)
    const kinds = [{ run_at }, { run_at, priority: 5 }]
    const waiting = Array.from({ length: size }, (_, nth) =>
      scripted(
        [],
        nth % 2 === 0
          ? { lane_key: `lane-${(made + nth) % ACTIVE}` }
          : kinds[nth % 4 === 1 ? 0 : 1],
      ),
    )
    await client.createBatch(waiting)
  }
  await eventually(
    async () => {
      const { body } = await client.get('/runs?status=waiting_on_child&limit=1000')
      return body.runs.length === PARENTS
    },
    { timeoutMs: 60_000 },
  )
  await sql`analyze`
}

/** Runs that come and go meanwhile. */
async function load(signal: AbortSignal): Promise<number> {
  const steps = ['a', 'b', 'c'].map((step) => ({ step, result: 'z'.repeat(200) }))
  const posts: Promise<unknown>[] = []
  let at = performance.now()
  while (!signal.aborted) {
    at += (-Math.log(1 - Math.random()) * 1000) / RATE
    await delay(Math.max(0, at - performance.now()))
    posts.push(client.createRun(scripted(steps)))
  }
  await Promise.all(posts)
  return posts.length
}

async function ask(due: number): Promise<{ ms: number; summary: unknown }> {
  const address = `${service.url}/api/v1/admin/agent-runtime/snapshot?limit=${LIMIT}`
  const answer = await fetch(address, { headers: { authorization: `Bearer ${service.token}` } })
  const text = await answer.text()
  const ms = performance.now() - due
  return { ms, summary: JSON.parse(text).summary }
}

async function measure(): Promise<void> {
  // Each of the two connections that snapshots have plans once, in some 60 ms.
  await Promise.all([ask(performance.now()), ask(performance.now())])
  const abort = new AbortController()
  const loaded = load(abort.signal)
  const asked: Promise<{ ms: number; summary: unknown }>[] = []
  const cpu = () => [cpuSeconds(service.pid), cpuSeconds(server.pid ?? 0)] as const
  const before = cpu()
  const startedAt = performance.now()
  for (let nth = 0; nth < SECONDS; nth += 1) {
    const due = startedAt + nth * 1000
    await delay(Math.max(0, due - performance.now()))
    asked.push(ask(due))
  }
  const answers = await Promise.all(asked)
  const after = cpu()
  abort.abort()
  const times = answers.map(({ ms }) => ms)
  const ms = (value: number): number => Number(value.toFixed(1))
  const facts = {
    ...{ open: OPEN, limit: LIMIT, seconds: SECONDS, posted: await loaded },
    p50_ms: ms(percentile(times, 0.5)),
    p99_ms: ms(percentile(times, 0.99)),
    max_ms: ms(Math.max(...times)),
    // Of the posted runs too: their share is that of a run with a low BENCH_RATE.
    cpu_ms_per_second: {
      node: ms(((after[0] - before[0]) * 1000) / SECONDS),
      postgres: ms(((after[1] - before[1]) * 1000) / SECONDS),
    },
    summary: answers.at(-1)?.summary,
  }
  process.stdout.write(`snapshot ${JSON.stringify(facts, null, 2)}\n`)
}
