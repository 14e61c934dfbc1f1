import { type Sql, takeRows } from './database.ts'
import { logBounds } from './events.ts'
import { listNodes, type NodeRow } from './nodes.ts'
import { isOrphan, type ListedRun, listedColumns } from './runs.ts'

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
  /** The worst first, each followed by those above it. */
  runs: ListedRun[]
  /** There are more of them. */
  truncated: boolean
  nodes: NodeRow[]
  cursor: number
  timestamp: string
}

/** Counts, rows and cursor of the same moment: one snapshot of the database, and all that is asked of it sent at once. */
export async function readSnapshot(sql: Sql, limit: number): Promise<Snapshot> {
  return sql.begin('isolation level repeatable read read only', async (transaction) => {
    const read = transaction as unknown as Sql
    const [, [counted], runs, nodes, { last: cursor }] = await Promise.all([
      byIndex(read),
      countRuns(read),
      openRuns(read, limit),
      listNodes(read),
      logBounds(read),
    ])
    if (!counted) throw new Error('a count has no row')
    const { timestamp, ...summary } = counted
    const truncated = runs.length < summary.running + summary.queued + summary.parked
    return { summary, runs, truncated, nodes, cursor, timestamp }
  })
}

/**
 * Statistics lag behind a growing table, and reading all of it once is what makes one snapshot in a hundred slow; so does planning
 * anew, which each connection would do five times, and so would compiling a plan that is only thought to be costly.
 */
const byIndex = (sql: Sql) => sql`
  select set_config('enable_seqscan', 'off', true), set_config('enable_hashjoin', 'off', true),
    set_config('enable_mergejoin', 'off', true), set_config('plan_cache_mode', 'force_generic_plan', true),
    set_config('jit', 'off', true)`

/** Each count from an index of its own: to look into ten thousand wide rows takes longer than all the rest. */
const countRuns = (sql: Sql) => sql<(SnapshotSummary & { timestamp: string })[]>`
  select a.running, a.subagents_active, a.orphan,
    (select count(*)::int from runlane.agent_runs where stuck_reason is not null and ended_at is null) as stuck,
    (select count(*)::int from runlane.agent_runs where status = 'waiting_on_lane')
      + (select count(*)::int from runlane.agent_runs where status = 'queued' and holds_lane)
      + (select count(*)::int from runlane.agent_runs where status = 'queued' and not holds_lane) as queued,
    (select count(*)::int from runlane.agent_runs where status = 'waiting_on_human') as parked,
    runlane.now() as timestamp
  from (select count(*)::int as running, count(parent_run_id)::int as subagents_active,
      (count(*) filter (where ${isOrphan(sql)}))::int as orphan
    from runlane.agent_runs r where owner_epoch is not null) as a`

/**
 * Unfinished runs of all nodes: stuck first, then orphans, then those that have been silent for longest; a run that nobody hosts is silent
 * since it came to where it is. Each is followed by those above it that are not there yet, the nearest first: they count as rows, so at
 * the end of a list some may be missing. Of each kind no more are looked at than are shown.
 */
const openRuns = (sql: Sql, limit: number) =>
  takeRows(sql<ListedRun[]>`
  with recursive worst as (
    (select run_id, parent_run_id, 1 as place, coalesce(last_progress_at, status_since) as silent_since
      from runlane.agent_runs where stuck_reason is not null and ended_at is null order by 4, 1 limit ${limit})
    union all
    (select run_id, parent_run_id, case when ${isOrphan(sql)} then 2 else 3 end, coalesce(last_progress_at, status_since)
      from runlane.agent_runs r where owner_epoch is not null and stuck_reason is null order by 3, 4, 1 limit ${limit})
    union all
    (select run_id, parent_run_id, 3, status_since from runlane.agent_runs
      where owner_epoch is null and ended_at is null and stuck_reason is null order by 4, 1 limit ${limit})
    order by 3, 4, 1 limit ${limit}
  ), line (nth, up, run_id, parent_run_id) as (
    select row_number() over (order by place, silent_since, run_id), 0, run_id, parent_run_id from worst
    union all
    select l.nth, l.up + 1, p.run_id, p.parent_run_id from line l
    join runlane.agent_runs p on p.run_id = l.parent_run_id and p.ended_at is null
  )
  select ${listedColumns(sql)} from (
    select * from (select distinct on (run_id) run_id, nth, up from line order by run_id, nth, up) as once
    order by nth, up limit ${limit}
  ) as i join runlane.agent_runs r using (run_id) join runlane.agent_run_payloads p using (run_id)
  order by i.nth, i.up`)
