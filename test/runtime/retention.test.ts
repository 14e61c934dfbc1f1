import postgres from 'postgres'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { deleteExpired } from '../../src/store/retention.ts'
import { api } from '../support/api.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type Service, startService } from '../support/service.ts'
import { readSse, type SseFrame } from '../support/sse.ts'

const HOUR_MS = 3_600_000
const databaseUrl = await freshDatabase()
const sql = postgres(databaseUrl, { max: 1, onnotice: () => {} })
let service: Service
beforeAll(async () => {
  service = await startService({ databaseUrl, env: { RUNLANE_RETENTION: 'off' } })
})
afterAll(async () => {
  await service.kill()
  await sql.end()
})

const client = () => api(service)
const ended = async (conversation_id: string) => {
  const steps = [{ journal: { next_action: 'none' } }, { tool: 't', ms: 1 }, { return: 1 }]
  const run = await client().createRun({ agent: 'scripted', conversation_id, input: { steps } })
  return client().waitForRun(run.run_id)
}
/** What a stream says until it is reset or ends. */
const framesOf = async (path: string): Promise<SseFrame[]> => {
  const frames: SseFrame[] = []
  for await (const frame of readSse({ url: service.url + path, token: service.token })) {
    frames.push(frame)
    if (frame.event === 'reset') break
  }
  return frames
}
/** As if they had been made, and had ended, so many hours before. */
const age = async (runId: string, hours: number) => {
  await sql`update runlane.agent_runs set ended_at = ended_at - ${hours} * interval '1 hour' where run_id = ${runId}`
}
const TABLES = [
  'agent_runs',
  'agent_run_payloads',
  'agent_events',
  'agent_tool_results',
  'run_commands',
  'waitpoints',
  'run_inbox',
] as const
const rowsOf = async (runId: string) => {
  const counts = await Promise.all(
    TABLES.map(async (table) => {
      const [row] =
        await sql`select count(*)::int as n from ${sql(`runlane.${table}`)} where run_id = ${runId}`
      return row?.['n'] as number
    }),
  )
  return counts.reduce((sum, n) => sum + n, 0)
}

test('what ended long enough ago goes with all that is its own; the audit trail and the rest stay', async () => {
  const old = await ended('old')
  const young = await ended('young')
  const failed = await client().createRun({
    agent: 'scripted',
    conversation_id: 'resumed',
    input: { steps: [{ step: 'a' }, { fail: 'x' }] },
  })
  await client().waitForRun(failed.run_id)
  await client().post(`/agent-runs/${failed.run_id}/resume?wait=20s`, {})
  const parked = await client().createRun({
    agent: 'scripted',
    input: { steps: [] },
    run_at: new Date(Date.now() + HOUR_MS).toISOString(),
  })
  await age(old.run_id, 2)
  await age(failed.run_id, 2)
  // Ids are as old as the runs: look as if an hour had gone by since.
  const retentionMs = 1
  await sql`update runlane.agent_runs set ended_at = ended_at + interval '1 day' where run_id = ${young.run_id}`

  expect(await deleteExpired(sql as never, retentionMs, 200)).toBe(2)

  expect(await rowsOf(old.run_id)).toBe(0)
  expect(await rowsOf(failed.run_id)).toBe(0)
  const audits = await sql`select from runlane.audit_events where run_id = ${failed.run_id}`
  expect(audits).toHaveLength(1)
  const journals = await sql`select journal_key from runlane.agent_run_journals`
  expect(journals.map((row) => row['journal_key'])).toEqual(['young'])
  expect(await rowsOf(young.run_id)).toBeGreaterThan(5)
  expect((await client().get(`/runs/${parked.run_id}`)).status).toBe(200)
  expect((await client().get(`/runs/${old.run_id}`)).status).toBe(404)
  expect(await deleteExpired(sql as never, retentionMs, 200)).toBe(0)
})

test('a reader whose cursor is before what was deleted starts over; one of a run that is left does not', async () => {
  const kept = await ended('kept')
  const gone = await ended('gone')
  const [first] = await client().events(kept.run_id)
  await sql`update runlane.agent_runs set ended_at = ended_at + interval '1 day' where run_id <> ${gone.run_id}
    and ended_at is not null`
  await age(gone.run_id, 2)
  expect(await deleteExpired(sql as never, 1, 200)).toBe(1)

  const after = `after_event_id=${first?.id}`
  const all = await framesOf(`/agent-events?${after}`)
  expect(all.at(-1)).toMatchObject({ event: 'reset' })
  const one = await framesOf(`/runs/${kept.run_id}/agent-events?${after}`)
  expect(one.filter(({ event }) => event === 'reset')).toEqual([])
  expect(one.filter(({ id }) => id !== undefined).length).toBeGreaterThan(3)
})

test('the service deletes by itself, in batches, what RUNLANE_RETENTION does not keep', async () => {
  const runs = await Promise.all(Array.from({ length: 5 }, (_, nth) => ended(`by-itself-${nth}`)))
  await sql`update runlane.agent_runs set ended_at = ended_at + interval '2 days' where ended_at is not null`
  for (const { run_id } of runs) await age(run_id, 72)

  // Nothing is older than it is: the ids of the runs tell when they were made.
  const made = Math.max(...runs.map((run) => Date.parse(run['created_at'] as string)))
  await eventually(() => Date.now() - made > 1_000, {
    timeoutMs: 5_000,
    message: 'a second to pass',
  })
  service = await service.restart({ env: { RUNLANE_RETENTION: '1s' } })

  await eventually(
    async () => {
      const left = await Promise.all(runs.map(({ run_id }) => rowsOf(run_id)))
      return left.every((rows) => rows === 0)
    },
    { timeoutMs: 20_000, message: 'five runs to be deleted' },
  )
  await eventually(() => /"runs":5.*runs were deleted/.test(service.stderr()))
})
