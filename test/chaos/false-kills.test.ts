import { fileURLToPath } from 'node:url'
import { setTimeout as pause } from 'node:timers/promises'
import postgres from 'postgres'
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { type Api, api, type Run } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { type PostgresServer, startPostgres } from '../support/postgres.ts'
import { type Service, startService } from '../support/service.ts'
import { scripted } from '../http/setup.ts'

/** Everything that may end a run is on, and has seconds where it has minutes in earnest. */
const HASTY = {
  RUNLANE_AGENTS: fileURLToPath(new URL('fixtures', import.meta.url)),
  RUNLANE_WATCHDOG_REASONING: '2s',
  // Longer than a second: a tool's notes are passed on no more often.
  RUNLANE_WATCHDOG_TOOL: '1500ms',
  RUNLANE_WATCHDOG_EXECUTOR: '1s',
  RUNLANE_WATCHDOG_INTERVAL: '200ms',
  RUNLANE_AUTO_TERMINATE: '4s',
  RUNLANE_RECONCILE_INTERVAL: '1s',
  RUNLANE_HEARTBEAT_TIMEOUT: '3s',
  RUNLANE_QUEUE_TIMEOUT: '6s',
  RUNLANE_LEASE: '1s',
  RUNLANE_CONCURRENCY: '12',
}
/** Four times what the most patient of those clocks allows: as 60 s are for a heartbeat time-out of fifteen. */
const OUTAGE_MS = Number(process.env['CHAOS_OUTAGE_MS'] ?? 12_000)

let server: PostgresServer
let service: Service
let client: Api
let sql: postgres.Sql
beforeAll(async () => {
  server = await startPostgres()
  service = await startService({ databaseUrl: server.url, env: HASTY })
  client = api(service)
  sql = postgres(server.url, { max: 2 })
})
afterAll(async () => {
  await service?.kill()
  await sql?.end()
  await server?.remove()
})

/** Two passes of the reconciler, and many looks of the watchdog, have begun and ended from now on. */
const looksOver = async (): Promise<void> => {
  for (let passes = 0; passes < 2; passes += 1) {
    const probe = await client.createRun(scripted([{ think: 1_200 }]))
    await client.waitForRun(probe.run_id)
  }
}
const completes = async (run: Run): Promise<void> => {
  expect(await client.waitForRun(run.run_id, { timeoutMs: 60_000 })).toMatchObject({
    status: 'completed',
  })
}

describe('nobody is ended who is alive:', () => {
  test('a slow tool that says how far it is', async () => {
    const run = await client.createRun({ agent: 'patient', input: { ms: 5_000 } })
    await completes(run)
    const told = (await client.events(run.run_id)).map(({ event_type }) => event_type)
    expect(told).not.toContain('run_stuck')
  })

  test('an executor that answers its probe late', async () => {
    const run = await client.createRun(
      scripted([{ step: 'before' }, { spin: 3_000 }, { think: 1_000 }]),
    )
    await completes(run)
    const told = (await client.events(run.run_id)).map(({ event_type }) => event_type)
    expect(told).toContain('run_stuck')
    expect(told).toContain('run_recovered')
  })

  test('a run that thinks for longer than it may, and then goes on', async () => {
    const run = await client.createRun(
      scripted([{ think: 3_000 }, { tool: 'next', ms: 10 }, { think: 1_500 }, { step: 'last' }]),
    )
    await completes(run)
    const told = (await client.events(run.run_id)).map(({ event_type }) => event_type)
    expect(told.filter((type) => type === 'run_stuck')).toHaveLength(1)
  })

  test('a run that only waits for its child, for longer than a turn and all that it may be stuck', async () => {
    const words = { say: 'word '.repeat(80), chunks: 40, ms: 8_000 }
    const child = { delegate: { agent: 'scripted', input: { steps: [words] } } }
    const run = await client.createRun(scripted([child], { timeouts: { turn: '2s' } }))
    await completes(run)
    const told = (await client.events(run.run_id)).map(({ event_type }) => event_type)
    expect(told).not.toContain('run_stuck')
  })

  test('a silent tool within the time that it declares', async () => {
    const run = await client.createRun({ agent: 'quiet', input: { ms: 6_000 } })
    await completes(run)
    const told = (await client.events(run.run_id)).map(({ event_type }) => event_type)
    expect(told).not.toContain('run_stuck')
  })

  test('runs that wait for their threads to start', async () => {
    const steps = [{ spin: 5 }, { tool: 'next', ms: 10 }, { say: 'done' }]
    const runs = await client.createBatch(Array.from({ length: 12 }, () => scripted(steps)))
    for (const run of runs) {
      await completes(run)
      const told = (await client.events(run.run_id)).map(({ event_type }) => event_type)
      expect(told).not.toContain('run_stuck')
    }
  }, 120_000)

  test('runs that were admitted and have not started', async () => {
    const busy = Array.from({ length: 12 }, () => scripted([{ think: 1_500 }]))
    const runs = await client.createBatch([...busy, ...busy, scripted([])])
    for (const run of runs) await completes(run)
  }, 60_000)

  test('work in flight at a restart, after a crash and after a drain', async () => {
    const steps = [{ step: 'one' }, { tool: 'slow', ms: 900, effects: 'idempotent' }]
    const crashed = await client.createRun(scripted(steps))
    await client.waitForRun(crashed.run_id, { until: ({ tool }) => tool === 'slow' })
    await service.kill()
    service = await service.restart()
    const drained = await client.createRun(scripted([{ step: 'one' }, { think: 1_500 }]))
    await client.waitForRun(drained.run_id, { until: ({ status }) => status === 'running' })
    service = await service.restart()
    await completes(crashed)
    await completes(drained)
  })

  test(`runs of a database that is away for ${OUTAGE_MS} ms`, async () => {
    const runs: Run[] = []
    for (let nth = 0; nth < 8; nth += 1)
      runs.push(
        await client.createRun(scripted([{ step: 'one' }, { think: 1_000 }, { step: 'two' }])),
      )
    await eventually(async () => (await client.run(runs[7]?.run_id ?? '')).status === 'running')
    await server.stopHard()
    await pause(OUTAGE_MS)
    await server.start()
    for (const run of runs) await completes(run)
  }, 120_000)

  test('a run for which it is not time yet', async () => {
    const run_at = new Date(Date.now() + 3 * 3_600_000).toISOString()
    const run = await client.createRun(scripted([], { run_at }))
    await looksOver()
    expect(await client.run(run.run_id)).toMatchObject({ status: 'queued' })
    await client.cancel(run.run_id)
  })

  test('a run that is answered after two days', async () => {
    const run = await client.createRun(scripted([{ step: 'one' }, { tool: 'pay', hang: true }]))
    await client.waitForRun(run.run_id, { until: ({ tool }) => tool === 'pay' })
    await service.kill()
    service = await service.restart()
    await client.waitForRun(run.run_id, { until: ({ status }) => status === 'waiting_on_human' })
    // As if it had been asked then.
    await sql`update runlane.agent_runs set status_since = status_since - interval '2 days',
      created_at = created_at - interval '2 days', last_heartbeat_at = last_heartbeat_at - interval '2 days',
      last_progress_at = last_progress_at - interval '2 days', line_since = line_since - interval '2 days'
      where run_id = ${run.run_id}`
    await looksOver()
    expect(await client.run(run.run_id)).toMatchObject({ status: 'waiting_on_human' })
    await client.respond(run.run_id, { outcome: 'succeeded', result: 'paid' })
    await completes(run)
  })

  test('and in all of that the watchdog has ended no run', async () => {
    const verdicts = await sql`select run_id, payload from runlane.agent_events
      where event_type = 'watchdog_verdict' and payload ->> 'result' = 'ended'`
    expect(verdicts).toEqual([])
    const bad =
      await sql`select run_id, status, error_code from runlane.agent_runs where status in ('failed', 'timed_out')`
    expect(bad).toEqual([])
  })
})
