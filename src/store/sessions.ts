import type { Sql } from './database.ts'

export interface SessionRow {
  /** Of the token that it stands for; null when a JWT was verified for it. */
  token_hash: string | null
  name: string
  role: string
}

export interface OpenSessionRow extends SessionRow {
  /** Milliseconds until it expires. */
  left_ms: number
}

/** Writes a session, and forgets those that have expired. */
export async function saveSession(
  sql: Sql,
  session: SessionRow & { hash: string; lasts_ms: number },
): Promise<void> {
  await sql`delete from runlane.sessions where expires_at <= runlane.now()`
  await sql`insert into runlane.sessions (hash, token_hash, name, role, created_at, expires_at)
    values (${session.hash}, ${session.token_hash}, ${session.name}, ${session.role}, runlane.now(),
      runlane.now() + ${session.lasts_ms} * interval '1 millisecond')`
}

export async function findSession(sql: Sql, hash: string): Promise<OpenSessionRow | undefined> {
  const [row] = await sql<OpenSessionRow[]>`
    select token_hash, name, role,
      (extract(epoch from expires_at - runlane.now()) * 1000)::double precision as left_ms
    from runlane.sessions where hash = ${hash} and expires_at > runlane.now()`
  return row
}

export async function deleteSession(sql: Sql, hash: string): Promise<void> {
  await sql`delete from runlane.sessions where hash = ${hash}`
}
