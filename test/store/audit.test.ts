import { randomUUID } from 'node:crypto'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { recordAudit } from '../../src/store/audit.ts'
import { type DatabaseTarget, openDatabase } from '../../src/store/database.ts'
import { startEmbedded } from '../../src/store/embedded.ts'
import type { AuditDraft } from '../../src/store/flush.ts'
import { migrationTexts } from '../../src/store/migrate.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { type StoreStage, storeStage } from '../support/store-stage.ts'

const draft = (changes: Partial<AuditDraft> = {}): AuditDraft => ({
  audit_key: randomUUID(),
  actor: 'token:ana',
  role: 'operator',
  action: 'agent_runtime.stop',
  target: 'run_1',
  run_id: 'run_1',
  reason: 'because',
  outcome: 'applied',
  code: null,
  request_id: 'request-1',
  before: { status: 'running' },
  after: { status: 'cancel_requested' },
  ...changes,
})

const servers: Record<string, () => Promise<{ target: DatabaseTarget; close(): Promise<void> }>> = {
  Postgres: async () => ({ target: { url, notifies: true }, close: async () => {} }),
  PGlite: async () => {
    const folder = mkdtempSync(join(tmpdir(), 'runlane-audit-'))
    const { target, close } = await startEmbedded(folder)
    return { target, close: () => close().then(() => rmSync(folder, { recursive: true })) }
  },
}
const url = await freshDatabase()
const otherUrl = await freshDatabase()

describe.each(Object.entries(servers))('the audit trail on %s', (_server, start) => {
  let stage: StoreStage
  let sql: StoreStage['reads']
  let close: () => Promise<void>
  beforeAll(async () => {
    const server = await start()
    stage = await storeStage(server.target)
    sql = stage.reads
    close = server.close
  })
  afterAll(async () => {
    await stage.close()
    await close()
  })
  const afresh = async () => {
    await sql`truncate runlane.audit_events`
    await sql`update runlane.audit_chain set purged_id = 0, purged_hash = '', newest_id = 0, newest_hash = ''`
  }
  beforeEach(afresh)
  const broken = (on = sql) => on<{ id: number; problem: string }[]>`
    select * from runlane.audit_verify()`
  const rows = () => sql<{ id: number; action: string; before: unknown; after: unknown }[]>`
    select id, action, before, after from runlane.audit_events order by id`

  test('is one chain without a gap, whoever writes at the same time', async () => {
    await Promise.all(
      Array.from({ length: 30 }, (_, nth) =>
        nth % 2 === 0
          ? stage.commit({ audits: [draft(), draft()] })
          : sql.begin((transaction) => recordAudit(transaction, draft())),
      ),
    )
    expect((await rows()).map(({ id }) => id)).toEqual(Array.from({ length: 45 }, (_, n) => n + 1))
    expect(await broken()).toEqual([])
  })

  test('has one row of what was sent twice, and none of what was rolled back', async () => {
    const twice = draft()
    await stage.commit({ audits: [twice] })
    await stage.commit({ audits: [twice] })
    const undone = sql.begin(async (transaction) => {
      await recordAudit(transaction, draft())
      throw new Error('undone')
    })
    await expect(undone).rejects.toThrow('undone')
    await recordAudit(sql, draft())
    expect((await rows()).map(({ id }) => id)).toEqual([1, 2])
    expect(await broken()).toEqual([])
  })

  test('shows what was changed, and says so instead where that is too large', async () => {
    await stage.commit({ audits: [draft({ before: { text: 'x'.repeat(5_000) } })] })
    await recordAudit(sql, draft({ before: null, after: null }))
    expect(await rows()).toMatchObject([
      { before: { too_large: true }, after: { status: 'cancel_requested' } },
      { before: null, after: null },
    ])
    const [nulls] = await sql`select before is null and after is null as both
      from runlane.audit_events where id = 2`
    expect(nulls).toEqual({ both: true })
    expect(await broken()).toEqual([])
  })

  /** Where the chain of five rows is broken afterwards. */
  const tampered = async (tamper: (on: typeof sql) => Promise<unknown>) => {
    await afresh()
    await stage.commit({ audits: [draft(), draft(), draft(), draft(), draft()] })
    expect(await broken()).toEqual([])
    let found: number[] = []
    await sql
      .begin(async (transaction) => {
        const on = transaction as unknown as typeof sql
        await tamper(on)
        found = (await broken(on)).map(({ id }) => id)
        throw new Error('tampering is undone')
      })
      .catch((error: unknown) => expect(String(error)).toContain('tampering is undone'))
    expect(await broken()).toEqual([])
    return found
  }

  test.each([
    ['at', `at + interval '1 microsecond'`],
    ['actor', `'token:bob'`],
    ['role', `'admin'`],
    ['action', `'agent_runtime.cancel'`],
    ['target', `'run_2'`],
    ['run_id', 'null'],
    ['reason', `'none'`],
    ['outcome', `'refused'`],
    ['code', `'not_stuck'`],
    ['request_id', 'null'],
    ['before', `'{"status": "queued"}'`],
    ['after', 'null'],
    ['hash', `md5('x')`],
    ['hash', 'null'],
  ])('a row whose %s was changed to %s is found', async (column, value) => {
    const found = await tampered((on) =>
      on.unsafe(`update runlane.audit_events set ${column} = ${value} where id = 3`),
    )
    expect(found).toContain(3)
  })

  test('a row that was changed with its hash shows in the next one, or in the end of the chain', async () => {
    const forged = (id: number) => (on: typeof sql) =>
      on`
      update runlane.audit_events set actor = 'nobody', hash = runlane.audit_hash(
        (select hash from runlane.audit_events where id = ${id - 1}),
        jsonb_populate_record(audit_events, '{"actor": "nobody"}'))
      where id = ${id}`
    expect(await tampered(forged(3))).toEqual([4])
    expect(await tampered(forged(5))).toEqual([5])
  })

  test.each([
    ['the oldest row', 1, [2]],
    ['a row between others', 3, [4]],
    ['the newest row', 5, [5]],
  ])('%s that was removed is found', async (_which, id, found) => {
    expect(await tampered((on) => on`delete from runlane.audit_events where id = ${id}`)).toEqual(
      found,
    )
  })

  test('all rows that were removed are missing', async () => {
    expect(await tampered((on) => on`delete from runlane.audit_events`)).toEqual([5])
  })

  test.each([
    ['between others', 3],
    ['behind the newest', 6],
    ['before the oldest', 0],
  ])('a row that was inserted %s past the trigger is found', async (_where, id) => {
    const found = await tampered(async (on) => {
      await on`alter table runlane.audit_events disable trigger audit_events_chained`
      await on`update runlane.audit_events set id = -id where id >= ${id}`
      await on`insert into runlane.audit_events select (jsonb_populate_record(e,
        jsonb_build_object('id', ${id}::int, 'audit_key', 'forged'))).* from runlane.audit_events e where abs(id) = 5`
      await on`update runlane.audit_events set id = 1 - id where id < 0`
    })
    expect(found).toContain(id)
  })

  test('two rows that changed places are found', async () => {
    const found = await tampered(async (on) => {
      await on`update runlane.audit_events set id = case id when 2 then -3 else -2 end where id in (2, 3)`
      await on`update runlane.audit_events set id = -id where id < 0`
    })
    expect(found).toEqual([2, 3, 4])
  })

  test('what was purged is not missing, and the purge is in the trail', async () => {
    await stage.commit({ audits: [draft(), draft(), draft()] })
    await sql`select pg_sleep(0.01)`
    const [{ cutoff } = { cutoff: '' }] = await sql<{ cutoff: string }[]>`
      select runlane.now()::text as cutoff`
    await stage.commit({ audits: [draft()] })

    const purge = sql`select runlane.audit_purge(${cutoff}::timestamptz) as rows`

    expect(await purge).toEqual([{ rows: 3 }])
    expect(await rows()).toMatchObject([
      { id: 4, action: 'agent_runtime.stop' },
      { id: 5, action: 'audit.purge', after: { rows: 3, up_to_id: 3 } },
    ])
    expect(await broken()).toEqual([])
    expect(await sql`select runlane.audit_purge(${cutoff}::timestamptz) as rows`).toEqual([
      { rows: 0 },
    ])
    await sql`delete from runlane.audit_events where id = 4`
    expect(await broken()).toMatchObject([{ id: 5 }])
    await afresh()
  })
})

test('rows of before this version are chained by the upgrade, with the ids they had', async () => {
  const { reads, close } = openDatabase({ url: otherUrl, notifies: false })
  // As a node of the former version writes it.
  const oldRow = () => reads`
    insert into runlane.audit_events (at, actor, role, action, target, outcome, audit_key)
    values (now(), 'a', 'b', 'c', 'd', 'applied', gen_random_uuid()::text)`
  for (const { number, text } of await migrationTexts()) {
    if (number === 7) {
      for (let nth = 0; nth < 3; nth += 1) await oldRow()
      await reads`delete from runlane.audit_events where id = 2`
    }
    await reads.unsafe(text)
  }
  await oldRow()

  const ids = await reads`select id from runlane.audit_events where hash is not null order by id`
  expect(ids.map(({ id }) => id)).toEqual([1, 3, 4])
  expect(await reads`select * from runlane.audit_verify()`).toEqual([])
  await reads`update runlane.audit_events set actor = 'x' where id = 1`
  expect(await reads`select id from runlane.audit_verify()`).toEqual([{ id: 1 }])
  await close()
})

test('a row whose transaction is still open keeps no other writer waiting', async () => {
  const stage = await storeStage({ url, notifies: true })
  await stage.reads.begin(async (transaction) => {
    await recordAudit(transaction, draft({ action: 'slow' }))
    await stage.commit({ audits: [draft({ action: 'quick' })] })
    await recordAudit(stage.reads, draft({ action: 'quick' }))
  })
  const last = await stage.reads`select action from runlane.audit_events order by id desc limit 3`
  expect(last.map(({ action }) => action)).toEqual(['slow', 'quick', 'quick'])
  expect(await stage.reads`select * from runlane.audit_verify()`).toEqual([])
  await stage.close()
})
