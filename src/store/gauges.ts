import type { Sql } from './database.ts'

/** How much there is of what waits, on all nodes; ages in seconds, 0 where nothing waits. */
export interface Gauges {
  by_status: Record<string, number>
  stuck: number
  lane_depth: number
  lane_age: number
  queue_age: number
  webhook_age: number
}

/** Reads every unfinished run once (by the index of those), and of what waits for a lane the index of its line. */
export async function readGauges(sql: Sql): Promise<Gauges> {
  const [row] = await sql<Gauges[]>`
    with by_status as (
      select status, count(*)::int as runs, count(stuck_reason)::int as stuck,
        min(coalesce(line_since, created_at)) filter (where status = 'waiting_on_lane' or holds_lane) as since
      from runlane.agent_runs where ended_at is null group by status
    ), waits as (
      select (select since from by_status where status = 'waiting_on_lane') as lane,
        (select since from by_status where status = 'queued') as queue,
        (select min(created_at) from runlane.webhook_deliveries where finished_at is null) as webhook,
        (select runlane.now()) as at
    )
    select (select coalesce(jsonb_object_agg(status, runs), '{}') from by_status) as by_status,
      (select coalesce(sum(stuck), 0)::int from by_status) as stuck,
      (select coalesce(max(l.depth), 0)::int from (select count(*) as depth from runlane.agent_runs
        where status = 'waiting_on_lane' group by lane_key) as l) as lane_depth,
      coalesce(extract(epoch from at - lane), 0)::float8 as lane_age,
      coalesce(extract(epoch from at - queue), 0)::float8 as queue_age,
      coalesce(extract(epoch from at - webhook), 0)::float8 as webhook_age
    from waits`
  if (!row) throw new Error('an aggregate has no row')
  return row
}

/** The simplest query: what it takes is what waiting for a connection takes. */
export async function ping(sql: Sql): Promise<void> {
  await sql`select 1`
}
