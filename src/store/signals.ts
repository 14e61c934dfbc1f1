import type { Sql } from './database.ts'
import type { Signal } from './rows.ts'

/** The oldest unread signals of this name, without those in `taken`. */
export async function unreadSignals(
  sql: Sql,
  runId: string,
  { name, taken, limit }: { name: string; taken: string[]; limit: number },
): Promise<Signal[]> {
  return sql<Signal[]>`
    select dedupe_key as command_id, payload -> 'data' as data, payload ->> 'by' as by from runlane.run_inbox
    where kind = 'signal' and run_id = ${runId} and name = ${name} and dedupe_key <> all (${taken})
    order by id limit ${limit}`
}

/** Those of these runs that have unread signals, of whatever name. */
export async function runsWithSignals(sql: Sql, runIds: string[]): Promise<string[]> {
  const rows = await sql<{ run_id: string }[]>`
    select distinct run_id from runlane.run_inbox where kind = 'signal' and run_id = any (${runIds})`
  return rows.map(({ run_id }) => run_id)
}
