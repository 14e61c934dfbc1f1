import type { Sql } from './database.ts'
import type { CheckpointRow } from './events.ts'

export async function findCheckpoint(
  sql: Sql,
  runId: string,
  checkpointId: string,
): Promise<CheckpointRow | undefined> {
  const [row] = await sql<CheckpointRow[]>`
    select checkpoint_id, run_id, type, sequence, created_at from runlane.agent_checkpoints
    where run_id = ${runId} and checkpoint_id = ${checkpointId}`
  return row
}

/** What a run had recorded when a checkpoint of it was made. What is settled stays as it is. */
export interface EnvelopeThen {
  /** Settled calls, and the bytes that they take as they are stored. */
  calls: number
  bytes: number
  /** Unsafe calls that had begun and whose outcome is not known to this day. */
  unknown_calls: { tool_call_id: string; tool: string }[]
  /** Calls of which it is not known whether they were settled then: an earlier version recorded them. */
  undated: number
}

export async function envelopeAt(sql: Sql, runId: string, sequence: number): Promise<EnvelopeThen> {
  const [row] = await sql<EnvelopeThen[]>`
    select count(*) filter (where settled_after < ${sequence})::int as calls,
      coalesce(sum(200 + coalesce(pg_column_size(result), 0) + coalesce(pg_column_size(input), 0)
        + coalesce(pg_column_size(error_message), 0)) filter (where settled_after < ${sequence}), 0)::float8 as bytes,
      coalesce(jsonb_agg(jsonb_build_object('tool_call_id', tool_call_id, 'tool', tool) order by position)
        filter (where outcome = 'started' and kind = 'tool' and effects = 'unsafe'
          and coalesce(begun_after, 0) < ${sequence}), '[]') as unknown_calls,
      count(*) filter (where outcome <> 'started' and settled_after is null)::int as undated
    from runlane.agent_tool_results where run_id = ${runId}`
  if (!row) throw new Error('a count has no row')
  return row
}
