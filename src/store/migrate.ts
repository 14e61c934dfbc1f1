import { readdir, readFile } from 'node:fs/promises'
import type { Sql } from './database.ts'

const FOLDER = new URL('./migrations/', import.meta.url)

/**
 * Brings the schema to this code's version: numbered files, each in its own transaction under an advisory lock, so that
 * replicas that start together apply each once. @throws when the schema is newer than this code.
 */
export async function migrate(sql: Sql): Promise<void> {
  const files = (await readdir(FOLDER)).filter((name) => name.endsWith('.sql')).sort()
  for (const file of files) await apply(sql, file)
  const newest = Number(files.at(-1)?.slice(0, 4))
  const [found] = await sql<
    { number: number }[]
  >`select max(number) as number from runlane.migrations`
  if (found && found.number > newest) {
    throw new Error(
      `the database schema is at migration ${found.number}, this version of runlane knows ${newest}: run a newer version`,
    )
  }
}

async function apply(sql: Sql, file: string): Promise<void> {
  const text = await readFile(new URL(file, FOLDER), 'utf8')
  const number = Number(file.slice(0, 4))
  await sql.begin(async (transaction) => {
    await transaction`select pg_advisory_xact_lock(7421)`
    await transaction.unsafe(`create schema if not exists runlane;
      create table if not exists runlane.migrations (number int primary key, name text not null,
        applied_at timestamptz not null default clock_timestamp())`)
    const [known] = await transaction`select 1 from runlane.migrations where number = ${number}`
    if (known) return
    await transaction`insert into runlane.migrations (number, name) values (${number}, ${file})`
    await transaction.unsafe(text)
  })
}
