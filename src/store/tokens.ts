import type { TransactionSql } from 'postgres'
import type { Json } from '../json.ts'
import { recordAudit } from './audit.ts'
import type { Sql } from './database.ts'
import type { AuditDraft } from './flush.ts'
import { forgetRequest, keepRequest, onceUnder, type RequestKey } from './request-keys.ts'

export interface TokenRow {
  id: string
  name: string
  role: string
  created_at: string
  revoked_at: string | null
}

type NewToken = Pick<TokenRow, 'id' | 'name' | 'role'> & { hash: string }

/** Writes a token's hash, once. False when it was revoked since. */
export async function saveToken(sql: Sql, token: NewToken): Promise<boolean> {
  await sql`insert into runlane.api_tokens (id, name, role, hash, created_at)
    values (${token.id}, ${token.name}, ${token.role}, ${token.hash}, runlane.now()) on conflict do nothing`
  return (await findToken(sql, token.hash)) !== undefined
}

/** Why a token was not made: its name is one in use, one of the past, or (to be rotated) none. */
export type NameRefusal = 'token_exists' | 'name_taken' | 'nothing_to_rotate'

/**
 * Writes a token with its audit row, and once under a key: `repeated` when a request had the key before. A name is taken
 * for good, since runs belong to it: only `rotate` gives it to another token, and revokes the one that has it in the same
 * transaction.
 */
export async function createToken(
  sql: Sql,
  token: NewToken,
  { rotate, key }: { rotate: boolean; key: RequestKey | undefined },
  auditOf: (change: { before: Json; after: Json }) => AuditDraft,
): Promise<TokenRow | NameRefusal | 'repeated'> {
  return sql.begin(async (transaction) => {
    // Of several that ask for one name at once, each sees what became of the one before. Who reads does not wait.
    await transaction`lock table runlane.api_tokens in share row exclusive mode`
    if (key && !(await keepRequest(transaction, key, token.id))) return 'repeated'
    const [latest] = await transaction<TokenRow[]>`
      select id, name, role, created_at, revoked_at from runlane.api_tokens where name = ${token.name}
      order by revoked_at desc nulls first limit 1`
    const inUse = latest?.revoked_at === null
    const refusal =
      rotate && !latest
        ? 'nothing_to_rotate'
        : latest && !rotate
          ? inUse
            ? 'token_exists'
            : 'name_taken'
          : null
    if (refusal !== null) {
      if (key) await forgetRequest(transaction, key)
      return refusal
    }
    if (latest && inUse) await revoke(transaction, latest.id)
    const [row] = await transaction<TokenRow[]>`
      insert into runlane.api_tokens (id, name, role, hash, created_at)
      values (${token.id}, ${token.name}, ${token.role}, ${token.hash}, runlane.now())
      returning id, name, role, created_at, revoked_at`
    if (!row) throw new Error('the token was not written')
    const before = latest ? { ...shown(latest), in_use: inUse } : null
    await recordAudit(transaction, auditOf({ before, after: shown(row) }))
    return row
  })
}

/** In use or revoked. */
export async function findTokenById(sql: Sql, id: string): Promise<TokenRow | undefined> {
  const [row] = await sql<TokenRow[]>`
    select id, name, role, created_at, revoked_at from runlane.api_tokens where id = ${id}`
  return row
}

/** True when it was in use until now; `repeated` when a request had the key before. Its sessions end with it. */
export async function revokeToken(
  sql: Sql,
  id: string,
  auditOf: (before: Json) => AuditDraft,
  key?: RequestKey,
): Promise<boolean | 'repeated'> {
  return sql.begin((transaction) =>
    onceUnder(transaction, key, id, async () => {
      const revoked = await revoke(transaction, id)
      if (revoked) await recordAudit(transaction, auditOf(shown(revoked)))
      return revoked !== undefined
    }),
  )
}

async function revoke(transaction: TransactionSql, id: string): Promise<TokenRow | undefined> {
  const [row] = await transaction<(TokenRow & { hash: string })[]>`
    update runlane.api_tokens set revoked_at = runlane.now() where id = ${id} and revoked_at is null
    returning id, name, role, created_at, revoked_at, hash`
  if (row) await transaction`delete from runlane.sessions where token_hash = ${row.hash}`
  return row
}

/** What the audit trail shows of a token. */
const shown = ({ id, name, role }: TokenRow) => ({ id, name, role })

/** Newest first, at most 1,000. */
export async function listTokens(sql: Sql): Promise<TokenRow[]> {
  return sql<TokenRow[]>`
    select id, name, role, created_at, revoked_at from runlane.api_tokens order by created_at desc, id limit 1000`
}

export async function findToken(sql: Sql, hash: string): Promise<TokenRow | undefined> {
  const [row] = await sql<TokenRow[]>`
    select id, name, role, created_at, revoked_at from runlane.api_tokens where hash = ${hash} and revoked_at is null`
  return row
}
