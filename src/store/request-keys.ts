import type { TransactionSql } from 'postgres'
import type { Sql } from './database.ts'

/** Under which a caller's request counts once, and what the request was. */
export interface RequestKey {
  requested_by: string
  text: string
  hash: string
}

/** What was made by a request, and what that request was. */
export interface KeptRequest {
  target: string
  request_hash: string
}

/** How long a key counts that made or deleted an agent or a token, or acted on many runs. */
const KEPT_DAYS = 30
/** Keys that are forgotten with one request. */
const FORGOTTEN_MAX = 1_000

export async function findRequest(sql: Sql, key: RequestKey): Promise<KeptRequest | undefined> {
  const [row] = await sql<KeptRequest[]>`
    select target, request_hash from runlane.request_keys
    where requested_by = ${key.requested_by} and key = ${key.text}`
  return row
}

/**
 * Writes the key with what is made under it, in the transaction that makes it. False: another request has it. One that is
 * under way at the same time is waited for.
 */
export async function keepRequest(
  transaction: TransactionSql,
  key: RequestKey,
  target: string,
): Promise<boolean> {
  await transaction`
    delete from runlane.request_keys k using (
      select requested_by, key from runlane.request_keys
      where created_at < runlane.now() - ${KEPT_DAYS} * interval '1 day' limit ${FORGOTTEN_MAX} for update skip locked
    ) as old
    where k.requested_by = old.requested_by and k.key = old.key`
  const { count } = await transaction`
    insert into runlane.request_keys (requested_by, key, request_hash, target, created_at)
    values (${key.requested_by}, ${key.text}, ${key.hash}, ${target}, runlane.now()) on conflict do nothing`
  return count > 0
}

/**
 * Does something in this transaction, once under a key; `repeated` when another request has the key. What finds nothing to
 * do (`act` answers false) leaves its key free.
 */
export async function onceUnder(
  transaction: TransactionSql,
  key: RequestKey | undefined,
  target: string,
  act: () => Promise<boolean>,
): Promise<boolean | 'repeated'> {
  if (key && !(await keepRequest(transaction, key, target))) return 'repeated'
  const done = await act()
  if (!done && key) await forgetRequest(transaction, key)
  return done
}

/** Nothing was made under the key after all: it is free again. */
export async function forgetRequest(transaction: TransactionSql, key: RequestKey): Promise<void> {
  await transaction`
    delete from runlane.request_keys where requested_by = ${key.requested_by} and key = ${key.text}`
}

/** Runs that this caller has made under these keys, or whose input it has replaced, in the order of the keys. */
export async function findKeyedRuns(
  sql: Sql,
  createdBy: string,
  keys: string[],
): Promise<{ run_id: string; request_hash: string | null }[]> {
  return sql`
    select coalesce(r.run_id, k.run_id) as run_id, coalesce(p.options ->> 'request_hash', k.request_hash) as request_hash
    from unnest(${keys}::text[]) with ordinality as i (key, nth)
    left join runlane.agent_runs r on r.created_by = ${createdBy} and r.idempotency_key = i.key
    left join runlane.agent_run_payloads p on p.run_id = r.run_id
    left join runlane.replacement_keys k on k.created_by = ${createdBy} and k.idempotency_key = i.key
    where coalesce(r.run_id, k.run_id) is not null order by i.nth`
}
