import type { Socket } from 'node:net'
import postgres from 'postgres'
import { expect, test } from 'vitest'
import { dialer } from '../../src/store/dial.ts'
import { eventually } from '../support/eventually.ts'
import { freshDatabase } from '../support/fresh-database.ts'

/** What is asked between the end of a connection and the moment when the driver learns of it. */
const url = await freshDatabase()
const SILENCE_MS = 200
const connected = async (silenceMs: number) => {
  const open = new Set<Socket>()
  const sql = postgres(url, { max: 1, ...{ socket: dialer(silenceMs, open) } })
  expect(await sql`select 1 as one`).toEqual([{ one: 1 }])
  const [socket] = open
  if (!socket) throw new Error('no connection is open')
  return { sql, socket }
}
/** Repeats what has failed, as whoever reads does; what is never answered fails the test. */
const answered = (sql: postgres.Sql) => eventually(() => sql`select 2 as two`)

test('a process that has stood still is answered although its connections are too old', async () => {
  const { sql } = await connected(SILENCE_MS)
  const asked = new Promise((resolve, reject) => {
    // Due after the end of the connection, and in the same turn of the loop.
    setTimeout(() => void answered(sql).then(resolve, reject), SILENCE_MS + 50)
  })
  const until = performance.now() + SILENCE_MS * 2
  while (performance.now() < until);
  expect(await asked).toEqual([{ two: 2 }])
  await sql.end()
})

test('what is asked of a connection that has just broken is answered by the next one', async () => {
  const { sql, socket } = await connected(60_000)
  socket.destroy(Object.assign(new Error('read ECONNRESET'), { code: 'ECONNRESET' }))
  const asked = new Promise((resolve, reject) => {
    process.nextTick(() => process.nextTick(() => answered(sql).then(resolve, reject)))
  })
  expect(await asked).toEqual([{ two: 2 }])
  await sql.end()
})
