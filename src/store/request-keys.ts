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

/** How long a key counts that made an agent or a token. */
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

/** Nothing was made under the key after all: it is free again. */
export async function forgetRequest(transaction: TransactionSql, key: RequestKey): Promise<void> {
  await transaction`
    delete from runlane.request_keys where requested_by = ${key.requested_by} and key = ${key.text}`
}
