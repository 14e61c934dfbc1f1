import { afterAll, beforeAll, expect, test } from 'vitest'
import { commitFlush } from '../../src/store/commits.ts'
import { openDatabase, type Sql } from '../../src/store/database.ts'
import { readEvents } from '../../src/store/events.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'
import { flushOf, groupOf, runDraft } from '../support/run-drafts.ts'
import { anyWaiting, type StoreStage, storeStage } from '../support/store-stage.ts'

const target = { url: await freshDatabase(), notifies: true }
let stage: StoreStage
beforeAll(async () => {
  stage = await storeStage(target)
})
afterAll(() => stage.close())

const creation = (runs: number) =>
  flushOf({ groups: [groupOf(...Array.from({ length: runs }, () => runDraft()))] })

const idsAfter = async (cursor: number): Promise<number[]> =>
  (await readEvents(stage.reads, { visibility: 'internal' }, cursor, 1_000)).map(({ id }) => id)

test('ids become visible in their order: a later commit waits for the one that took ids before it', async () => {
  const [one, other] = [openDatabase(target), openDatabase(target)]
  const cursor = (await idsAfter(0)).at(-1) ?? 0
  let second: Promise<unknown> = Promise.resolve()
  await one.commits.sql.begin(async (transaction) => {
    await commitFlush(transaction as unknown as Sql, creation(2))
    second = commitFlush(other.commits.sql, creation(2))
    await eventually(() => anyWaiting(stage.reads))
    expect(await idsAfter(cursor)).toEqual([])
  })
  const first = await eventually(async () => {
    const ids = await idsAfter(cursor)
    return ids.length >= 6 && ids
  })
  await second
  const all = await idsAfter(cursor)
  expect(all).toHaveLength(12)
  expect(all.slice(0, first.length)).toEqual(first)
  await Promise.all([one.close(), other.close()])
})

test(
  'a reader that polls by id misses no event of three writers, and sees each once',
  { timeout: 60_000 },
  async () => {
    const databases = [openDatabase(target), openDatabase(target), openDatabase(target)]
    const cursor = (await idsAfter(0)).at(-1) ?? 0
    let writing = true
    const seen: number[] = []
    const read = async (): Promise<void> => {
      for (let last = cursor; ; last = seen.at(-1) ?? last) {
        const wasWriting = writing
        const page = await idsAfter(last)
        seen.push(...page)
        if (page.length === 0 && !wasWriting) return
      }
    }
    const writer = async ({ commits }: (typeof databases)[number]): Promise<void> => {
      for (let flush = 0; flush < 60; flush += 1) await commitFlush(commits.sql, creation(11))
    }

    const reading = read()
    await Promise.all(databases.map(writer))
    writing = false
    await reading

    const written = await stage.reads<{ id: number }[]>`
      select id from runlane.agent_events where id > ${cursor} order by id`
    expect(written).toHaveLength(3 * 60 * 11 * 3)
    expect(seen).toEqual(written.map(({ id }) => id))
    await Promise.all(databases.map((database) => database.close()))
  },
)
