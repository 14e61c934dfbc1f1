import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import { lateInLine, repairLanes } from '../../src/store/reconcile.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { runDraft } from '../support/run-drafts.ts'
import { type StoreStage, storeStage } from '../support/store-stage.ts'

const url = await freshDatabase()
const MINUTE = 60_000
const HOUR = 60 * MINUTE

let store: StoreStage
beforeAll(async () => {
  store = await storeStage({ url, notifies: true })
  // The database's clock is the test's: the time of day, and what has gone by in the test.
  await store.reads`create table clock as select 0::bigint as ms`
  await store.reads`create or replace function runlane.now() returns timestamptz language sql volatile as
    $$ select timestamptz '2026-01-01 00:00Z' + (select ms from public.clock) * interval '1 millisecond' $$`
})
afterAll(() => store.close())

const goesBy = (ms: number) => store.reads`update clock set ms = ms + ${ms}`
const pause = (queue: string) => store.reads`
  update runlane.queues set paused = true, paused_at = runlane.now() where name = ${queue}`
const unpause = (queue: string) => store.reads`
  update runlane.queues set paused = false, paused_at = null where name = ${queue}`
const posted = async (changes: Parameters<typeof runDraft>[0] = {}): Promise<string> => {
  const draft = runDraft(changes)
  await store.create(draft)
  return draft.run_id
}
const late = async (): Promise<string[]> =>
  (await lateInLine(store.reads, HOUR, 100)).map(({ run_id }) => run_id)

describe('a run waits in line', () => {
  test('for an hour, and a minute later it is late', async () => {
    const runId = await posted()
    await goesBy(HOUR)
    expect(await late()).not.toContain(runId)
    await goesBy(MINUTE)
    expect(await late()).toContain(runId)
  })

  test('and the time that its queue is paused is no waiting time', async () => {
    await store.reads`insert into runlane.queues (name) values ('nightly')`
    const before = await posted({ queue: 'nightly' })
    await goesBy(30 * MINUTE)
    await pause('nightly')
    await goesBy(HOUR)
    const during = await posted({ queue: 'nightly' })
    await goesBy(9 * HOUR)
    for (const runId of [before, during]) expect(await late()).not.toContain(runId)
    await unpause('nightly')
    const after = await posted({ queue: 'nightly' })
    expect(await late()).not.toContain(before)
    await goesBy(31 * MINUTE)
    expect(await late()).toContain(before)
    expect(await late()).not.toContain(during)
    await pause('nightly')
    await goesBy(HOUR)
    await unpause('nightly')
    await goesBy(30 * MINUTE)
    expect(await late()).toEqual(expect.arrayContaining([before, during, after]))
  })
})

describe('what has come apart', () => {
  test('is told dry, and repaired when asked', async () => {
    const lane_key = 'apart'
    const head = await posted({ lane_key })
    const next = await posted({ lane_key })
    const other = await posted({ lane_key: 'beside' })
    await store.reads`update runlane.agent_runs set holds_lane = false where run_id in (${head}, ${other})`
    const drift = { leaked: [], dropped: [head, other].toSorted(), idle: [] }
    const told = async (dry: boolean) => {
      const { last_event_id: _, dropped, ...rest } = await repairLanes(store.reads, 100, dry)
      return { ...rest, dropped: dropped.toSorted() }
    }
    expect(await told(true)).toEqual(drift)
    expect(await told(true)).toEqual(drift)
    expect(await told(false)).toEqual(drift)
    expect(await told(false)).toEqual({ leaked: [], dropped: [], idle: [] })
    expect(await store.row(head)).toMatchObject({ status: 'queued', holds_lane: true })
    expect(await store.row(next)).toMatchObject({ status: 'waiting_on_lane', holds_lane: false })
  })
})
