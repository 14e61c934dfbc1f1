import type { Json } from '../json.ts'
import { recordAudit } from './audit.ts'
import type { Sql } from './database.ts'
import type { AuditDraft } from './flush.ts'
import { keepRequest, onceUnder, type RequestKey } from './request-keys.ts'

/** An agent that was declared over HTTP. */
export interface DeclaredRow {
  name: string
  definition: Json
  declared_by: string
  created_at: string
  updated_at: string
}

export async function findDeclared(sql: Sql, name: string): Promise<DeclaredRow | undefined> {
  const [row] = await sql<DeclaredRow[]>`select * from runlane.agents where name = ${name}`
  return row
}

export async function listDeclared(sql: Sql): Promise<DeclaredRow[]> {
  return sql<DeclaredRow[]>`select * from runlane.agents order by name limit ${DECLARED_MAX}`
}

/** Agents that can be declared, so that a list of them stays one page. */
export const DECLARED_MAX = 1_000

/**
 * Writes the agent and its audit row, made for the definition it had, and once under a key. Nothing is written when there
 * are too many (`full`), and when a request had the key before (`repeated`).
 */
export async function saveDeclared(
  sql: Sql,
  agent: { name: string; definition: Json; declared_by: string },
  auditOf: (before: Json) => AuditDraft,
  key?: RequestKey,
): Promise<'created' | 'replaced' | 'full' | 'repeated'> {
  return sql.begin(async (transaction) => {
    await transaction`lock table runlane.agents in share row exclusive mode`
    const [others] = await transaction<{ count: number }[]>`
      select count(*)::int as count from runlane.agents where name <> ${agent.name}`
    if ((others?.count ?? 0) >= DECLARED_MAX) return 'full'
    if (key && !(await keepRequest(transaction, key, agent.name))) return 'repeated'
    const [earlier] = await transaction<{ definition: Json }[]>`
      select definition from runlane.agents where name = ${agent.name}`
    await transaction`
      insert into runlane.agents as a (name, definition, declared_by, created_at, updated_at)
      values (${agent.name}, ${transaction.json(agent.definition as never)}, ${agent.declared_by}, runlane.now(), runlane.now())
      on conflict (name) do update set definition = excluded.definition, declared_by = excluded.declared_by,
        updated_at = excluded.updated_at`
    await recordAudit(transaction, auditOf(earlier?.definition ?? null))
    return earlier ? 'replaced' : 'created'
  })
}

/** True when there was one; `repeated` when a request had the key before. The audit row is written with it. */
export async function deleteDeclared(
  sql: Sql,
  name: string,
  auditOf: (before: Json) => AuditDraft,
  key?: RequestKey,
): Promise<boolean | 'repeated'> {
  return sql.begin((transaction) =>
    onceUnder(transaction, key, name, async () => {
      const [deleted] = await transaction<{ definition: Json }[]>`
        delete from runlane.agents where name = ${name} returning definition`
      if (deleted) await recordAudit(transaction, auditOf(deleted.definition))
      return deleted !== undefined
    }),
  )
}

/** Runs of these agents that are not over, by agent. */
export async function countActive(sql: Sql): Promise<Map<string, number>> {
  const rows = await sql<{ agent: string; runs: number }[]>`
    select agent, count(*)::int as runs from runlane.agent_runs where owner_epoch is not null group by agent`
  return new Map(rows.map((row) => [row.agent, row.runs]))
}
