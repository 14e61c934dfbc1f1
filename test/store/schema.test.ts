import { readdir } from 'node:fs/promises'
import { afterAll, beforeAll, describe, expect, inject, test } from 'vitest'
import { type Database, openDatabase } from '../../src/store/database.ts'
import { migrate } from '../../src/store/migrate.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { createDatabase } from '../support/postgres.ts'
import { runDraft } from '../support/run-drafts.ts'
import { type StoreStage, storeStage } from '../support/store-stage.ts'

const target = { url: await freshDatabase(), notifies: true }

describe('a run row', () => {
  let stage: StoreStage
  let epoch: number
  beforeAll(async () => {
    stage = await storeStage(target)
    epoch = await stage.node()
  })
  afterAll(() => stage.close())

  test('cannot hold a lane that another one holds, whoever writes it', async () => {
    const [head, next] = [runDraft(), runDraft()]
    await stage.create(head, { ...next, lane_key: head.lane_key })
    const { reads } = stage
    await expect(
      reads`update runlane.agent_runs set holds_lane = true where run_id = ${next.run_id}`,
    ).rejects.toMatchObject({ code: '23505', constraint_name: 'agent_runs_one_holder_per_lane' })
  })

  test.each([
    ['agent_runs_status_known', { status: 'dreaming' }],
    ['agent_runs_owned_when_active', { status: 'running' }],
    ['agent_runs_owned_when_active', { owner_epoch: 1 }],
    ['agent_runs_active_holds_lane', { status: 'running', owner_epoch: 1, holds_lane: false }],
    ['agent_runs_ended_when_terminal', { status: 'completed' }],
    ['agent_runs_ended_when_terminal', { ended_at: '2026-01-01T00:00:00Z' }],
  ])('is refused by %s as %o', async (constraint_name, changes) => {
    const draft = runDraft()
    await stage.create(draft)
    const { reads } = stage
    await expect(
      reads`update runlane.agent_runs set ${reads(changes as Record<string, string>)}
        where run_id = ${draft.run_id}`,
    ).rejects.toMatchObject({ code: '23514', constraint_name })
  })

  test('belongs to an active run exactly as long as it is owned', async () => {
    const draft = runDraft()
    await stage.create(draft)
    await stage.claim(epoch)
    const { reads } = stage
    await expect(
      reads`update runlane.agent_runs set owner_epoch = null where run_id = ${draft.run_id}`,
    ).rejects.toMatchObject({ constraint_name: 'agent_runs_owned_when_active' })
  })

  test('keeps one run per caller and Idempotency-Key', async () => {
    const keys = { created_by: 'caller', idempotency_key: 'once' }
    await stage.create(runDraft(keys))
    const { reads } = stage
    const other = runDraft()
    await stage.create(other)
    await expect(
      reads`update runlane.agent_runs set ${reads(keys)} where run_id = ${other.run_id}`,
    ).rejects.toMatchObject({ constraint_name: 'agent_runs_idempotency' })
  })
})

describe('migrations', () => {
  const opened: Database[] = []
  const emptyDatabase = async () => {
    const { url, drop } = await createDatabase(inject('databaseUrl'))
    afterAll(async () => {
      await Promise.all(opened.map((database) => database.close()))
      await drop()
    })
    const open = (): Database => {
      const database = openDatabase({ url, notifies: false })
      opened.push(database)
      return database
    }
    return open
  }
  const empty = emptyDatabase()
  const numbersIn = async (database: Database): Promise<number[]> =>
    (
      await database.reads<{ number: number }[]>`
        select number from runlane.migrations order by number`
    ).map(({ number }) => number)

  test('are each applied once by nodes that start together', async () => {
    const open = await empty
    const databases = [open(), open(), open()]
    await Promise.all(databases.map(({ reads }) => migrate(reads)))
    const files = await readdir(new URL('../../src/store/migrations/', import.meta.url))
    const numbers = files.map((name) => Number(name.slice(0, 4))).toSorted((a, b) => a - b)
    expect(await numbersIn(open())).toEqual(numbers)
  })

  test('are left alone by a later start', async () => {
    const open = await empty
    const database = open()
    const before = await database.reads`select * from runlane.migrations order by number`
    await migrate(database.reads)
    const after = await database.reads`select * from runlane.migrations order by number`
    expect(after).toEqual(before)
  })

  test('of a newer version stop the start, and say both numbers', async () => {
    const open = await empty
    const { reads } = open()
    await reads`insert into runlane.migrations (number, name) values (9999, 'from the future')`
    await expect(migrate(reads)).rejects.toThrow(/migration 9999.*knows \d+/)
    await reads`delete from runlane.migrations where number = 9999`
    await expect(migrate(reads)).resolves.toBeUndefined()
  })
})
