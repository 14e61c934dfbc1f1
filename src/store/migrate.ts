import { readdir, readFile } from 'node:fs/promises'
import type { Sql } from './database.ts'

const FOLDER = new URL('./migrations/', import.meta.url)

interface Migration {
  number: number
  file: string
  text: string
}

/** The numbered files in their order. */
export async function migrationTexts(): Promise<Migration[]> {
  const files = (await readdir(FOLDER)).filter((name) => name.endsWith('.sql')).toSorted()
  return Promise.all(
    files.map(async (file) => ({
      number: Number(file.slice(0, 4)),
      file,
      text: await readFile(new URL(file, FOLDER), 'utf8'),
    })),
  )
}

/**
 * Brings the schema to this code's version: numbered files, each in its own transaction under an advisory lock, so that
 * replicas that start together apply each once. @throws when the schema is newer than this code.
 */
export async function migrate(sql: Sql): Promise<void> {
  const migrations = await migrationTexts()
  for (const migration of migrations) await apply(sql, migration)
  const newest = migrations.at(-1)?.number ?? 0
  const [found] = await sql<
    { number: number }[]
  >`select max(number) as number from runlane.migrations`
  if (found && found.number > newest) {
    throw new Error(
      `the database schema is at migration ${found.number}, this version of runlane knows ${newest}: run a newer version`,
    )
  }
}

let newest: Promise<number> | undefined

/** Whether the schema is the one that this code knows: a newer one is for newer code. */
export async function schemaFits(sql: Sql): Promise<boolean> {
  newest ??= migrationTexts().then((migrations) => migrations.at(-1)?.number ?? 0)
  const [found] = await sql<
    { number: number | null }[]
  >`select max(number) as number from runlane.migrations`
  return found?.number === (await newest)
}

async function apply(sql: Sql, { number, file, text }: Migration): Promise<void> {
  await sql.begin(async (transaction) => {
    // Another replica's migration, or this one, may take longer than a statement otherwise may.
    await transaction`set local statement_timeout = 0`
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
