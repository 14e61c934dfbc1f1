import type { Sql } from './database.ts'

/** Somebody reads, or read until `ago_ms` before now. */
export interface Reading {
  key: string
  ago_ms: number
}

/** Tells other nodes what is read at this one. One statement, however many readers there are. */
export async function noteReadings(sql: Sql, epoch: number, readings: Reading[]): Promise<void> {
  await sql`
    insert into runlane.readers as r (key, epoch, read_at)
    select x.key, ${epoch}, runlane.now() - x.ago_ms * interval '1 millisecond'
    from jsonb_to_recordset(${JSON.stringify(readings)}::text::jsonb) as x (key text, ago_ms float8) order by x.key
    on conflict (key, epoch) do update set read_at = greatest(r.read_at, excluded.read_at)`
}

/** Those of the keys that somebody has read, on any node, within the last `withinMs`. */
export async function readLately(sql: Sql, keys: string[], withinMs: number): Promise<string[]> {
  const rows = await sql<{ key: string }[]>`
    select distinct key from runlane.readers
    where key = any (${keys}) and read_at > runlane.now() - ${withinMs} * interval '1 millisecond'`
  return rows.map((row) => row.key)
}

export async function forgetReadings(sql: Sql, olderThanMs: number): Promise<void> {
  await sql`delete from runlane.readers where read_at < runlane.now() - ${olderThanMs} * interval '1 millisecond'`
}
