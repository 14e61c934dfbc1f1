import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { openDatabase, type Sql } from '../../src/store/database.ts'
import { startEmbedded } from '../../src/store/embedded.ts'

const folder = mkdtempSync(join(tmpdir(), 'runlane-embedded-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const embedded = await startEmbedded(folder)
afterAll(() => embedded.close())
const open = () => {
  const database = openDatabase(embedded.target)
  afterAll(() => database.close())
  return database
}
const database = open()

const echoed = async (sql: Sql, n: number): Promise<number | undefined> => {
  const [row] = await sql<{ n: number }[]>`select ${n}::int as n`
  return row?.n
}

test('each connection gets its own rows, while others are in transactions', async () => {
  const { reads, runtime } = database
  for (let round = 0; round < 50; round += 1) {
    const asked = Array.from({ length: 12 }, (_, nth) => round * 100 + nth)
    const changed = reads.begin(async (transaction) => {
      const [first] = await transaction<{ n: number }[]>`select ${round + 1}::int as n`
      const [second] = await transaction<{ n: number }[]>`select ${round}::int as n`
      return [first?.n, second?.n]
    })

    const rows = await Promise.all(asked.map((n) => echoed(n % 2 === 0 ? reads : runtime, n)))

    expect(rows).toEqual(asked)
    expect(await changed).toEqual([round + 1, round])
  }
})

test('what a transaction that is rolled back has written is nowhere, whoever asks meanwhile', async () => {
  const { reads, runtime } = database
  await reads`create table notes (n int)`
  const writing = Array.from({ length: 20 }, (_, n) =>
    reads
      .begin(async (transaction) => {
        await transaction`insert into notes values (${n})`
        if (n % 2 === 1) throw new Error('no')
      })
      .then(
        () => 'kept',
        () => 'undone',
      ),
  )
  const asking = Array.from({ length: 40 }, (_, n) => echoed(runtime, n))

  const ends = await Promise.all(writing)

  expect(await Promise.all(asking)).toEqual(Array.from({ length: 40 }, (_, n) => n))
  expect(ends).toEqual(Array.from({ length: 20 }, (_, n) => (n % 2 === 1 ? 'undone' : 'kept')))
  const kept = await runtime<{ n: number }[]>`select n from notes order by n`
  expect(kept.map(({ n }) => n)).toEqual(Array.from({ length: 10 }, (_, n) => n * 2))
})

test('a connection that is cut in the middle of a transaction holds nobody up', async () => {
  const leaving = openDatabase(embedded.target)
  await leaving.reads
    .begin(async (transaction) => {
      await transaction`select 1`
      void leaving.reads.end({ timeout: 0 })
      await transaction`select pg_sleep(0)`
    })
    .catch(() => {})
  await leaving.close()

  expect(await echoed(database.reads, 7)).toBe(7)
})
