import { recordAudit } from './audit.ts'
import type { Sql } from './database.ts'
import type { AuditDraft } from './flush.ts'
import { forgetRequest, keepRequest, type RequestKey } from './request-keys.ts'

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

/**
 * With its audit row, and once under a key. Undefined, and nothing is written, when a token in use has the name;
 * `repeated` when a request had the key before.
 */
export async function createToken(
  sql: Sql,
  token: NewToken,
  audit: AuditDraft,
  key?: RequestKey,
): Promise<TokenRow | 'repeated' | undefined> {
  return sql.begin(async (transaction) => {
    if (key && !(await keepRequest(transaction, key, token.id))) return 'repeated'
    const [row] = await transaction<TokenRow[]>`
      insert into runlane.api_tokens (id, name, role, hash, created_at)
      values (${token.id}, ${token.name}, ${token.role}, ${token.hash}, runlane.now()) on conflict do nothing
      returning id, name, role, created_at, revoked_at`
    if (row) await recordAudit(transaction, audit)
    else if (key) await forgetRequest(transaction, key)
    return row
  })
}

/** In use or revoked. */
export async function findTokenById(sql: Sql, id: string): Promise<TokenRow | undefined> {
  const [row] = await sql<TokenRow[]>`
    select id, name, role, created_at, revoked_at from runlane.api_tokens where id = ${id}`
  return row
}

/** True when it was in use until now. Its sessions end with it. */
export async function revokeToken(sql: Sql, id: string, audit: AuditDraft): Promise<boolean> {
  return sql.begin(async (transaction) => {
    const [row] = await transaction<{ hash: string }[]>`
      update runlane.api_tokens set revoked_at = runlane.now() where id = ${id} and revoked_at is null returning hash`
    if (!row) return false
    await transaction`delete from runlane.sessions where token_hash = ${row.hash}`
    await recordAudit(transaction, audit)
    return true
  })
}

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
