import { chmodSync, existsSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { chmod, mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'
import { expect, inject, onTestFinished, test, vi } from 'vitest'
import { freshDatabase } from './fresh-database.ts'
import { createDatabase, startPostgres } from './postgres.ts'

const fresh = await freshDatabase()

async function query<T>(url: string, run: (sql: postgres.Sql) => Promise<T>): Promise<T> {
  const sql = postgres(url, { max: 1, connect_timeout: 5 })
  try {
    return await run(sql)
  } finally {
    await sql.end({ timeout: 1 })
  }
}

const count = (url: string): Promise<unknown> =>
  query(url, async (sql) => (await sql`select count(*)::int as n from kept`)[0]?.['n'])

test('a server of our own keeps what was committed over a restart and a crash, at the same address', async () => {
  const server = await startPostgres({ settings: { max_connections: 30 } })
  try {
    const first = server.pid
    await query(server.url, (sql) => sql`create table kept as select 1 as one`)
    await server.restart()
    expect(server.pid).not.toBe(first)
    expect(await count(server.url)).toBe(1)

    await query(server.url, (sql) => sql`insert into kept values (2)`)
    await server.stopHard()
    expect(server.pid).toBeUndefined()
    await expect(count(server.url)).rejects.toMatchObject({ code: 'ECONNREFUSED' })
    await server.start()
    expect(await count(server.url)).toBe(2)

    const settings = await query(
      server.url,
      (sql) => sql`select name, setting from pg_settings
        where name in ('fsync', 'max_connections', 'synchronous_commit', 'server_version_num')`,
    )
    const value = Object.fromEntries(settings.map((row) => [row['name'], row['setting']]))
    expect(value).toMatchObject({ fsync: 'on', max_connections: '30', synchronous_commit: 'on' })
    expect(Number(value['server_version_num'])).toBeGreaterThanOrEqual(180_000)
  } finally {
    await server.remove()
  }
  expect(server.pid).toBeUndefined()
})

test('a data directory that the caller gave outlives its server', async () => {
  const folder = await mkdtemp(join(tmpdir(), 'runlane-test-'))
  await chmod(folder, 0o755)
  const dataDir = join(folder, 'data')
  try {
    const first = await startPostgres({ dataDir })
    await query(first.url, (sql) => sql`create table kept as select 1 as one`)
    await first.remove()
    expect(existsSync(join(dataDir, 'PG_VERSION'))).toBe(true)
    const second = await startPostgres({ dataDir })
    expect(await count(second.url)).toBe(1)
    await second.remove()
  } finally {
    await rm(folder, { recursive: true })
  }
})

test('refuses to start on a setting that Postgres does not know, with its words, and leaves nothing', async () => {
  // A folder of its own: other tests start servers in the common one at the same time.
  const folder = mkdtempSync(join(tmpdir(), 'runlane-refused-'))
  chmodSync(folder, 0o755)
  vi.stubEnv('TMPDIR', folder)
  onTestFinished(() => {
    vi.unstubAllEnvs()
    rmSync(folder, { recursive: true })
  })
  await expect(startPostgres({ settings: { no_such: 1 } })).rejects.toThrow('no_such')
  expect(readdirSync(folder)).toEqual([])
})

test('a database is empty, bears the name asked for, and is gone after drop, even in use', async () => {
  const database = await createDatabase(inject('databaseUrl'), `named_${process.pid}`)
  const inUse = postgres(database.url, { max: 1, onclose: () => {} })
  const [row] = await inUse`select current_database() as name,
    (select count(*)::int from pg_tables where schemaname = 'public') as tables`
  expect(row).toEqual({ name: `named_${process.pid}`, tables: 0 })
  await database.drop()
  await inUse.end({ timeout: 1 })
  await expect(count(database.url)).rejects.toMatchObject({ code: '3D000' })
})

test('freshDatabase gives this file a database of its own', async () => {
  expect(new URL(fresh).pathname).toMatch(/^\/test_[0-9a-f]{32}$/)
  await query(fresh, (sql) => sql`create table kept as select 1 as one`)
  expect(await count(fresh)).toBe(1)
})
