import type { Sql } from './database.ts'
import { logBounds } from './events.ts'
import { listNodes, type NodeRow } from './nodes.ts'
import { openRuns, type RunView } from './runs.ts'

export interface SnapshotSummary {
  running: number
  stuck: number
  orphan: number
  queued: number
  parked: number
  subagents_active: number
}

export interface Snapshot {
  summary: SnapshotSummary
  runs: RunView[]
  nodes: NodeRow[]
  cursor: number
  timestamp: string
}

/** Counts, rows and cursor of the same moment: one snapshot of the database. */
export async function readSnapshot(sql: Sql, limit: number): Promise<Snapshot> {
  return sql.begin('isolation level repeatable read read only', async (transaction) => {
    const read = transaction as unknown as Sql
    const [counted] = await read<(SnapshotSummary & { timestamp: string })[]>`
      select count(*) filter (where owner_epoch is not null)::int as running,
        count(*) filter (where stuck_reason is not null)::int as stuck,
        count(*) filter (where owner_epoch is not null and (chart -> 'context' -> 'orphan')::boolean)::int as orphan,
        count(*) filter (where status in ('queued', 'waiting_on_lane'))::int as queued,
        count(*) filter (where status = 'waiting_on_human')::int as parked,
        count(*) filter (where owner_epoch is not null and parent_run_id is not null)::int as subagents_active,
        runlane.now() as timestamp
      from runlane.agent_runs where ended_at is null`
    if (!counted) throw new Error('a count has no row')
    const { timestamp, ...summary } = counted
    const runs = await openRuns(read, limit)
    const nodes = await listNodes(read)
    const { last: cursor } = await logBounds(read)
    return { summary, runs, nodes, cursor, timestamp }
  })
}
