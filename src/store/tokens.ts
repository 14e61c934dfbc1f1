import type { Sql } from './database.ts'

export interface TokenRow {
  id: string
  name: string
  role: string
}

/** Writes a token's hash, once. */
export async function saveToken(sql: Sql, token: TokenRow & { hash: string }): Promise<void> {
  await sql`insert into runlane.api_tokens (id, name, role, hash, created_at)
    values (${token.id}, ${token.name}, ${token.role}, ${token.hash}, runlane.now()) on conflict do nothing`
}

export async function findToken(sql: Sql, hash: string): Promise<TokenRow | undefined> {
  const [row] = await sql<TokenRow[]>`
    select id, name, role from runlane.api_tokens where hash = ${hash} and revoked_at is null`
  return row
}
