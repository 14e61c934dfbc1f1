import type { Sql } from './database.ts'

/**
 * Runs that have been in line for longer than `limitMs`, oldest first: since they came into their status, so that a run
 * which was handed over, resumed or answered begins to wait anew. In a paused queue nobody can come forward, so nobody is
 * late there.
 */
export async function lateInLine(sql: Sql, limitMs: number, limit: number): Promise<string[]> {
  const rows = await sql<{ run_id: string }[]>`
    select r.run_id from runlane.agent_runs r join runlane.queues q on q.name = r.queue
    where r.ended_at is null and r.status in ('queued', 'waiting_on_lane') and not q.paused
      and (r.holds_lane or r.status = 'waiting_on_lane')
      and r.status_since < runlane.now() - ${limitMs} * interval '1 millisecond'
    order by r.status_since, r.run_id limit ${limit}`
  return rows.map((row) => row.run_id)
}
