/** A cancel of runs that wait for a place, for a human, or are just being taken up again. */
import postgres from 'postgres'
import { expect, onTestFinished, test } from 'vitest'
import { type Api, api, type Run, type RunEvent } from '../support/api.ts'
import {
  expectCancelledOnce,
  expectStartedAfter,
  isEnd,
  toolResultsOf,
} from '../support/cancelled.ts'
import { type EffectServer, startEffectServer } from '../support/effect-server.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { startService } from '../support/service.ts'
import { expectProblem, scripted } from './setup.ts'

interface Staged extends Api {
  readonly effects: EffectServer
  readonly sql: postgres.Sql
  /** `kill -9`, then a new start. */
  crash(): Promise<void>
}

const LONG = { think: 600_000 }

const staged = async (env: Record<string, string>): Promise<Staged> => {
  const databaseUrl = await freshDatabase()
  const effects = await startEffectServer()
  const sql = postgres(databaseUrl, { max: 2, onnotice: () => {} })
  let service = await startService({ databaseUrl, env: { RUNLANE_LEASE: '1s', ...env } })
  onTestFinished(async () => {
    await service.kill()
    await sql.end()
    await effects.close()
  })
  return {
    ...api(service),
    effects,
    sql,
    crash: async () => {
      await service.kill()
      service = await service.restart()
    },
  }
}

/** A run that was parked in a call when its node was killed, and the next one of its lane. */
const parkedIn = async (
  { createRun, waitForRun, effects, crash }: Staged,
  detail: string,
  ...before: object[]
): Promise<{ parked: Run; next: Run }> => {
  const call = { http: `${effects.url}/charge`, body: { hang: true }, call_id: 'charge' }
  const more = { lane_key: detail, hold_lane_on_human: true }
  const { run_id } = await createRun(scripted([...before, call, { http: effects.url }], more))
  const next = await createRun(scripted([{ return: 'next' }], { lane_key: detail }))
  await eventually(() => effects.calls.length === 1)
  await crash()
  const parked = await waitForRun(run_id, { until: ({ status }) => status === 'waiting_on_human' })
  expect(parked.detail).toBe(detail)
  return { parked, next }
}

/** Whoever is being resumed reads its recorded calls first, and cannot until `during` is over. */
const whileCallsCannotBeRead = async <T>(sql: postgres.Sql, during: () => Promise<T>) => {
  await sql.unsafe(`
    alter table runlane.agent_tool_results rename to readable_results;
    create function runlane.readable() returns boolean language plpgsql volatile as
      'begin perform pg_advisory_xact_lock_shared(99); return true; end';
    create view runlane.agent_tool_results as select * from runlane.readable_results where runlane.readable()`)
  return sql.begin(async (held) => {
    await held`select pg_advisory_xact_lock(99)`
    return during()
  })
}

test.each([
  ['unknown_tool_call', '3', [{ step: 'recorded' }]],
  ['crash_loop', '1', []],
])(
  'cancelled while it asks about %s, a run ends at once and frees the lane that it held',
  async (detail, crashes, before) => {
    const stage = await staged({ RUNLANE_MAX_CRASHES: crashes })
    const { parked, next } = await parkedIn(stage, detail, ...before)
    expect((await stage.run(next.run_id)).status).toBe('waiting_on_lane')

    const { body } = await stage.cancel(parked.run_id, { reason: 'enough' })

    expect(body).toMatchObject({ command: { status: 'applied' }, run: { status: 'cancelled' } })
    const all = await expectCancelledOnce(stage, parked.run_id)
    await expectStartedAfter(stage, next, all.at(-1) as RunEvent)
    expectProblem(await stage.respond(parked.run_id, { outcome: 'retry' }), {
      status: 409,
      code: 'not_waiting',
    })
    expect(stage.effects.calls).toHaveLength(1)
    const asked = await stage.sql`select w.status, w.completed_at = r.ended_at as with_it
      from runlane.waitpoints w join runlane.agent_runs r using (run_id) where run_id = ${parked.run_id}`
    expect([...asked]).toEqual([{ status: 'cancelled', with_it: true }])
  },
)

test('cancelled in the line of a full node, a run never starts', async () => {
  const stage = await staged({ RUNLANE_CONCURRENCY: '1' })
  const { createRun, cancel, run } = stage
  const holder = await createRun(scripted([LONG]))
  await stage.waitForRun(holder.run_id, { until: ({ status }) => status === 'running' })
  const lane_key = 'queued'
  const queued = await createRun(scripted([{ http: stage.effects.url }], { lane_key }))
  const next = await createRun(scripted([{ return: 'next' }], { lane_key }))
  expect([queued.status, next.status]).toEqual(['queued', 'waiting_on_lane'])

  const { body } = await cancel(queued.run_id, { reason: 'enough' })

  expect(body.run.status).toBe('cancelled')
  expect((await run(next.run_id)).status).toBe('queued')
  expect((await run(holder.run_id)).status).toBe('running')
  const all = await expectCancelledOnce(stage, queued.run_id)
  expect(all.map(({ event_type }) => event_type)).not.toContain('lease_acquired')
  await cancel(holder.run_id)
  expect((await stage.waitForRun(next.run_id)).status).toBe('completed')
  expect(stage.effects.calls).toEqual([])
})

test('cancelled while it is being resumed, a run ends before any code of it runs again', async () => {
  const stage = await staged({ RUNLANE_CONCURRENCY: '1' })
  const { createRun, waitForRun, cancel, resume, effects, sql } = stage
  const more = { lane_key: 'resumed' }
  const failed = await createRun(
    scripted([{ http: effects.url }, { tool: 't', fail: 'not today' }], more),
  )
  expect((await waitForRun(failed.run_id)).status).toBe('failed')
  const holder = await createRun(scripted([LONG]))
  await waitForRun(holder.run_id, { until: ({ status }) => status === 'running' })
  expect((await resume(failed.run_id)).body.run.status).toBe('queued')
  const next = await createRun(scripted([{ return: 'next' }], more))

  const end = await whileCallsCannotBeRead(sql, async () => {
    await cancel(holder.run_id)
    await waitForRun(failed.run_id, { until: ({ status }) => status === 'resuming' })
    const { body } = await cancel(failed.run_id, { reason: 'enough' })
    expect(body.command).toMatchObject({ status: 'applied', outcome: 'cancel_requested' })
    expect((await waitForRun(failed.run_id)).status).toBe('cancelled')
    return (await stage.events(failed.run_id)).at(-1) as RunEvent
  })

  const all = await stage.events(failed.run_id)
  expect(all.filter(isEnd).map(({ payload }) => payload.to)).toEqual(['failed', 'cancelled'])
  expect(all.at(-1)).toEqual(end)
  await expectStartedAfter(stage, next, end)
  expect(all.map(({ event_type }) => event_type)).not.toContain('run_resumed')
  expect(effects.calls).toHaveLength(1)
  expect(await toolResultsOf(stage, failed.run_id)).toHaveLength(2)
})
