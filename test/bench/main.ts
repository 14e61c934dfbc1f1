/**
 * The benchmark: `npm run bench`. Service, Postgres (fsync on) and client on this one machine.
 *
 * 1. Throughput: runs of three plain steps, posted in batches, from the first POST to the last completed run.
 * 2. The same three steps by an agent as code, in the threads that run agent code: what a thread costs.
 * 3. Latency: single POSTs on an open loop (arrivals do not wait for answers), to the first step and to completion,
 *    both as a client sees them on one event stream.
 * 4. The same three-step work done by a peer, graphile-worker, on the same server.
 *
 * BENCH_RUNS (default 20000), BENCH_RATE per second (100), BENCH_SECONDS (60).
 *
 * `npm run bench -- cancel`: only cancels, BENCH_RATE per second (15) for BENCH_SECONDS, among BENCH_RUNS active runs (1000).
 */
import { execFile } from 'node:child_process'
import process from 'node:process'
import { setTimeout as delay } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import postgres from 'postgres'
import { createDatabase, startPostgres } from '../support/postgres.ts'
import { type Service, startService } from '../support/service.ts'
import { cancels } from './cancel.ts'
import { follow, post, print, spread } from './client.ts'
import { cpuSeconds, databaseWork } from './measure.ts'

const CANCELS = process.argv[2] === 'cancel'
const RUNS = Number(process.env['BENCH_RUNS'] ?? (CANCELS ? 1_000 : 20_000))
const RATE = Number(process.env['BENCH_RATE'] ?? (CANCELS ? 15 : 100))
const SECONDS = Number(process.env['BENCH_SECONDS'] ?? 60)
const AGENTS = fileURLToPath(new URL('./agents', import.meta.url))
const PEER = fileURLToPath(new URL('./peer.ts', import.meta.url))
const BATCH = 500
const POSTERS = 2

const result = { ok: 1, text: 'z'.repeat(180) }
const STEPS = 3
const INPUT = { steps: ['a', 'b', 'c'].map((step) => ({ step, result })) }
const SCRIPTED = { agent: 'scripted', input: INPUT }
const CODE = { agent: 'steps' }

const server = await startPostgres({
  settings: { shared_preload_libraries: 'pg_stat_statements', 'pg_stat_statements.track': 'top' },
})
const { url } = await createDatabase(server.url)
const sql = postgres(url, { max: 1, onnotice: () => {} })
await sql`create extension pg_stat_statements`
const service = await startService({
  databaseUrl: url,
  env: {
    RUNLANE_AGENTS: AGENTS,
    // Room for those that come before those that they replace have gone.
    ...(CANCELS ? { RUNLANE_CONCURRENCY: String(2 * RUNS) } : {}),
  },
  ...(process.env['BENCH_PROF']
    ? { nodeArgs: ['--cpu-prof', `--cpu-prof-dir=${process.env['BENCH_PROF']}`] }
    : {}),
})
try {
  if (CANCELS)
    await cancels(service, sql, server.pid ?? 0, { active: RUNS, rate: RATE, seconds: SECONDS })
  else await allWork(service)
} finally {
  await service.stop()
  await sql.end()
  await server.remove()
}

async function allWork(target: Service): Promise<void> {
  for (const runs of [Math.min(2000, RUNS), RUNS]) {
    const name = runs === RUNS ? 'throughput' : 'warm-up'
    await throughput(target, runs, `${name}, scripted on the main thread`, SCRIPTED)
    await throughput(target, runs, `${name}, code in threads`, CODE)
  }
  if (SECONDS > 0) await openLoop(target)
  await peer(RUNS)
}

async function throughput(target: Service, runs: number, name: string, run: object): Promise<void> {
  const before = {
    work: await databaseWork(sql),
    node: cpuSeconds(target.pid),
    pg: cpuSeconds(server.pid ?? 0),
    client: process.cpuUsage(),
  }
  const done = await terminalRuns()
  const startedAt = performance.now()
  let posted = 0
  await Promise.all(
    Array.from({ length: POSTERS }, async () => {
      while (posted < runs) {
        const size = Math.min(BATCH, runs - posted)
        posted += size
        await post(target, '/runs/batch', {
          runs: Array.from({ length: size }, () => run),
        })
      }
    }),
  )
  // Seldom enough not to weigh: counting costs the database more than some runs do.
  while ((await terminalRuns()) < done + runs) await delay(100)
  const seconds = (performance.now() - startedAt) / 1000
  const client = process.cpuUsage(before.client)
  const work = await databaseWork(sql)
  const per = (now: number, then: number, digits = 2): number =>
    Number(((now - then) / runs).toFixed(digits))
  print(name, {
    runs,
    seconds: Number(seconds.toFixed(2)),
    runs_per_second: Math.round(runs / seconds),
    steps_per_second: Math.round((runs * STEPS) / seconds),
    per_run: {
      statements: per(work.statements, before.work.statements, 3),
      commits: per(work.commits, before.work.commits, 3),
      rows: per(work.rows, before.work.rows),
      wal_bytes: per(work.walBytes, before.work.walBytes, 0),
      cpu_us: {
        client: Math.round((client.user + client.system) / runs),
        node: Math.round(((cpuSeconds(target.pid) - before.node) * 1e6) / runs),
        postgres: Math.round(((cpuSeconds(server.pid ?? 0) - before.pg) * 1e6) / runs),
      },
    },
  })
}

async function openLoop(target: Service): Promise<void> {
  const samples = { firstStep: [] as number[], completed: [] as number[] }
  const sentAt = new Map<string, number>()
  const early = new Map<string, { step?: number; end?: number }>()
  const abort = new AbortController()
  const stream = follow(target, sql, abort.signal, (event, at) => {
    const kind =
      event.event_type === 'step_finished'
        ? 'step'
        : event.payload.to === 'completed'
          ? 'end'
          : undefined
    if (kind === undefined) return
    const seen = early.get(event.run_id) ?? {}
    if (seen[kind] !== undefined) return
    early.set(event.run_id, { ...seen, [kind]: at })
  })
  const posts: Promise<void>[] = []
  const startedAt = performance.now()
  let at = startedAt
  while (at < startedAt + SECONDS * 1000) {
    at += (-Math.log(1 - Math.random()) * 1000) / RATE
    await delay(Math.max(0, at - performance.now()))
    // Timed from when it was due: a late client would otherwise hide the wait (coordinated omission).
    const due = at
    posts.push(
      post(target, '/runs', SCRIPTED).then((run) => {
        sentAt.set((run as { run_id: string }).run_id, due)
      }),
    )
  }
  await Promise.all(posts)
  const complete = (): boolean => [...sentAt.keys()].every((id) => early.get(id)?.end !== undefined)
  for (const until = performance.now() + 20_000; !complete() && performance.now() < until;)
    await delay(50)
  abort.abort()
  await stream
  for (const [id, sent] of sentAt) {
    const { step, end } = early.get(id) ?? {}
    if (step !== undefined) samples.firstStep.push(step - sent)
    if (end !== undefined) samples.completed.push(end - sent)
  }
  print('open loop', {
    rate: RATE,
    seconds: SECONDS,
    create_to_first_step: spread(samples.firstStep),
    create_to_completed: spread(samples.completed),
  })
}

async function peer(runs: number): Promise<void> {
  const { url: peerUrl } = await createDatabase(server.url)
  const before = cpuSeconds(server.pid ?? 0)
  const { stdout } = await promisify(execFile)(process.execPath, [PEER, peerUrl, String(runs)])
  const { seconds, cpu_us } = JSON.parse(stdout.trim().split('\n').at(-1) ?? '{}') as {
    seconds: number
    cpu_us: number
  }
  print('peer graphile-worker', {
    runs,
    seconds: Number(seconds.toFixed(2)),
    runs_per_second: Math.round(runs / seconds),
    per_run: {
      cpu_us: {
        node: cpu_us,
        postgres: Math.round(((cpuSeconds(server.pid ?? 0) - before) * 1e6) / runs),
      },
    },
  })
}

async function terminalRuns(): Promise<number> {
  const [row] = await sql<{ count: number }[]>`
    select count(*)::int as count from runlane.agent_runs where status = 'completed'`
  return row?.count ?? 0
}
