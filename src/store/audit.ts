import type { TransactionSql } from 'postgres'
import type { Json } from '../json.ts'
import type { Sql } from './database.ts'
import type { AuditDraft } from './flush.ts'

export interface AuditRow extends Omit<AuditDraft, 'audit_key'> {
  id: number
  at: string
  /** Of this row and the hash of the row before it: what makes the trail a chain. */
  hash: string
}

/** The audit row of an action: in the action's transaction, or alone when it was refused. */
export async function recordAudit(sql: Sql | TransactionSql, audit: AuditDraft): Promise<void> {
  const { audit_key, actor, role, action, target, run_id, reason, outcome, code, request_id } =
    audit
  const [before, after] = [audit.before, audit.after].map(jsonText)
  await sql`insert into runlane.audit_events (at, actor, role, action, target, run_id, reason, outcome, code, request_id,
      audit_key, before, after)
    values (runlane.now(), ${actor}, ${role}, ${action}, ${target}, ${run_id}, ${reason}, ${outcome}, ${code}, ${request_id},
      ${audit_key}, ${before ?? null}::text::jsonb, ${after ?? null}::text::jsonb) on conflict (audit_key) do nothing`
}

const jsonText = (value: Json): string | null => (value === null ? null : JSON.stringify(value))

/** Newest first; the cursor is the last id of the page before. */
export async function listAudit(
  sql: Sql,
  filter: {
    action?: string | undefined
    actor?: string | undefined
    since?: string | undefined
    before?: number | undefined
    limit: number
  },
): Promise<AuditRow[]> {
  const { action, actor, since, before, limit } = filter
  return sql<AuditRow[]>`
    select id, at, actor, role, action, target, run_id, reason, outcome, code, request_id, before, after,
      hash
    from runlane.audit_events where true
      ${action === undefined ? sql`` : sql`and action = ${action}`}
      ${actor === undefined ? sql`` : sql`and actor = ${actor}`}
      ${since === undefined ? sql`` : sql`and at >= ${since}::timestamptz`}
      ${before === undefined ? sql`` : sql`and id < ${before}`}
    order by id desc limit ${limit}`
}
