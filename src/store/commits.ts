import type { Sql } from './database.ts'
import { flushText, type Flush, type FlushAnswer } from './flush.ts'

/**
 * Writes a flush in one round trip; the statement is its own transaction. A connection error leaves open whether it
 * was written: `appliedRecords` tells afterwards.
 */
export async function commitFlush(sql: Sql, flush: Flush): Promise<FlushAnswer> {
  const text = flushText(flush)
  const [row] =
    flush.deliveries.length === 0
      ? await sql<{ answer: FlushAnswer }[]>`select runlane.commit(${text}::text::jsonb) as answer`
      : await sql<
          { answer: FlushAnswer }[]
        >`select runlane.commit_and_notify(${text}::text::jsonb) as answer`
  if (!row) throw new Error('runlane.commit answered nothing')
  return row.answer
}

/** Of these records, the ids that are the last applied one of their run: the commit reached the database. */
export async function appliedRecords(
  sql: Sql,
  recordIds: string[],
  runIds: string[],
): Promise<Set<string>> {
  const rows = await sql<{ record_id: string }[]>`
    select record_id from runlane.agent_runs where run_id = any (${runIds}) and record_id = any (${recordIds})`
  return new Set(rows.map((row) => row.record_id))
}

/** Wakes the other nodes. Only a hint: polls find what a lost one would have told. */
export async function notifyNodes(sql: Sql, epoch: number): Promise<void> {
  await sql`select pg_notify('runlane', ${String(epoch)})`
}

/**
 * Calls `onHint` for each hint of another node, and once after each (re)connect, when hints may have been missed. `seized`:
 * it has taken runs from their owners.
 */
export async function listenForHints(
  sql: Sql,
  onHint: (fromEpoch: number, seized: boolean) => void,
): Promise<() => Promise<void>> {
  const listening = await sql.listen(
    'runlane',
    (payload) => onHint(Number.parseInt(payload, 10), payload.endsWith('seized')),
    () => onHint(-1, false),
  )
  return async () => listening.unlisten()
}
