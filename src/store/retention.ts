import { encodeTime } from 'ulid'
import type { Sql } from './database.ts'

/**
 * Deletes runs whose whole tree ended longer ago than `retentionMs`, with all that is theirs, at most `limit` trees.
 * Audit rows stay. Answers how many runs went; 0 as well while another node is at it.
 */
export async function deleteExpired(sql: Sql, retentionMs: number, limit: number): Promise<number> {
  return sql.begin(async (transaction) => {
    const [lock] = await transaction<{ free: boolean }[]>`
      select pg_try_advisory_xact_lock(7421) as free`
    if (!lock?.free) return 0
    const [clock] = await transaction<{ ms: number }[]>`
      select (extract(epoch from runlane.now()) * 1000)::float8 as ms`
    // Run ids sort by their creation, which is before their end: the oldest are looked at first, by the primary key.
    const before = `run_${encodeTime(Math.floor((clock?.ms ?? 0) - retentionMs), 10)}`
    const roots = await transaction<{ run_id: string }[]>`
      select r.run_id from runlane.agent_runs r
      where r.run_id < ${before} and r.parent_run_id is null
        and r.ended_at < runlane.now() - ${retentionMs} * interval '1 millisecond'
        and not exists (select from runlane.agent_runs c where c.root_run_id = r.run_id and c.parent_run_id is not null
          and (c.ended_at is null or c.ended_at >= runlane.now() - ${retentionMs} * interval '1 millisecond'))
      order by r.run_id limit ${limit}`
    if (roots.length === 0) return 0
    const rootIds = roots.map(({ run_id }) => run_id)
    const runs = await transaction<{ run_id: string; conversation_id: string }[]>`
      delete from runlane.agent_runs where run_id = any (${rootIds})
        or (parent_run_id is not null and root_run_id = any (${rootIds}))
      returning run_id, conversation_id`
    const ids = runs.map(({ run_id }) => run_id)
    const conversations = [...new Set(runs.map(({ conversation_id }) => conversation_id))]
    await transaction`
      with gone as (delete from runlane.agent_events where run_id = any (${ids}) returning id)
      update runlane.purged set event_id = greatest(event_id, (select coalesce(max(id), 0) from gone))`
    await transaction`delete from runlane.agent_run_payloads where run_id = any (${ids})`
    await transaction`delete from runlane.agent_tool_results where run_id = any (${ids})`
    await transaction`delete from runlane.waitpoints where run_id = any (${ids})`
    await transaction`delete from runlane.run_commands where run_id = any (${ids})`
    await transaction`delete from runlane.run_inbox where run_id = any (${ids})`
    await transaction`delete from runlane.replacement_keys where run_id = any (${ids})`
    await transaction`
      delete from runlane.agent_run_journals j where j.journal_key = any (${ids}) or (j.journal_key = any (${conversations})
        and not exists (select from runlane.agent_runs r where r.conversation_id = j.journal_key))`
    return runs.length
  })
}
