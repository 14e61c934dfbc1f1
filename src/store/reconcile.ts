import type { Sql } from './database.ts'

/** A run that a rule has found, as it was then: it is ended only if it is still so. */
export interface Late {
  run_id: string
  version: number
  /** For how long it has been so. */
  age_ms: number
}

/** How long a pass may be silent before another node may begin one. */
const TURN_MS = 30_000

/** Takes or keeps the turn to reconcile; false while a node that is alive has it. */
export async function takeTurn(sql: Sql, epoch: number): Promise<boolean> {
  const rows = await sql`
    update runlane.reconciling t set epoch = ${epoch}, until = runlane.now() + ${TURN_MS} * interval '1 millisecond'
    where t.epoch is null or t.epoch = ${epoch} or t.until < runlane.now() or not exists (
      select from runlane.nodes n where n.epoch = t.epoch and n.status in ('serving', 'draining')
        and n.lease_until > runlane.now())
    returning epoch`
  return rows.length === 1
}

export async function giveTurnBack(sql: Sql, epoch: number): Promise<void> {
  await sql`update runlane.reconciling set epoch = null where epoch = ${epoch}`
}

/**
 * Active runs whose node has not vouched for them for longer than `limitMs`, oldest first; and how many runs it could have
 * been. A node that is known to be lost does not count here: its runs are adopted, and RUNLANE_RECOVERY says what follows.
 */
export async function silentRuns(
  sql: Sql,
  limitMs: number,
  limit: number,
): Promise<{ late: Late[]; runs: number; of: number }> {
  const rows = await sql<(Late & { runs: number; of: number })[]>`
    with vouched as (
      select r.run_id, r.version, extract(epoch from runlane.now() - r.last_heartbeat_at) * 1000 as age_ms
      from runlane.agent_runs r join runlane.nodes n on n.epoch = r.owner_epoch
      where r.owner_epoch is not null
        and r.status in ('running', 'waiting_on_tool', 'waiting_on_child', 'resuming')
        and n.status in ('serving', 'draining') and n.lease_until > runlane.now()
    )
    select run_id, version, age_ms::float8, count(*) over ()::int as runs, (select count(*)::int from vouched) as of
    from vouched where age_ms > ${limitMs} order by age_ms desc, run_id limit ${limit}`
  const [first] = rows
  const late = rows.map(({ run_id, version, age_ms }) => ({ run_id, version, age_ms }))
  return { late, runs: first?.runs ?? 0, of: first?.of ?? 0 }
}

/**
 * Runs that have been in line for longer than `limitMs`, oldest first: since they came into their status, so that a run
 * which was handed over, resumed or answered begins to wait anew, without the time that its queue was paused. In a queue
 * that is paused nobody can come forward, so nobody is late there.
 */
export async function lateInLine(sql: Sql, limitMs: number, limit: number): Promise<Late[]> {
  return sql<Late[]>`
    select r.run_id, r.version, waited.ms as age_ms
    from runlane.agent_runs r join runlane.queues q on q.name = r.queue
    cross join lateral (select (extract(epoch from runlane.now() - r.status_since
      - coalesce((select sum(p.resumed_at - greatest(p.paused_at, r.status_since)) from runlane.queue_pauses p
        where p.queue = r.queue and p.resumed_at > r.status_since), interval '0')) * 1000)::float8 as ms) as waited
    where r.ended_at is null and r.status in ('queued', 'waiting_on_lane') and not q.paused
      and (r.holds_lane or r.status = 'waiting_on_lane')
      and r.status_since < runlane.now() - ${limitMs} * interval '1 millisecond' and waited.ms > ${limitMs}
    order by r.status_since, r.run_id limit ${limit}`
}

/**
 * Runs that were asked to cancel longer ago than `limitMs` and have not ended. A parent's clock starts when the last of
 * the children that were cancelled with it has ended.
 */
export async function staleCancels(sql: Sql, limitMs: number, limit: number): Promise<Late[]> {
  return sql<Late[]>`
    select r.run_id, r.version, (extract(epoch from runlane.now() - asked.at) * 1000)::float8 as age_ms
    from runlane.agent_runs r
    cross join lateral (select greatest(r.cancel_requested_at, max(c.ended_at)) as at,
        coalesce(bool_or(c.ended_at is null), false) as waits
      from runlane.agent_runs c where c.parent_run_id = r.run_id and c.cancel_requested_at is not null) as asked
    where r.owner_epoch is not null and r.status = 'cancel_requested' and not asked.waits
      and asked.at < runlane.now() - ${limitMs} * interval '1 millisecond'
    order by asked.at, r.run_id limit ${limit}`
}

/** Runs and lanes that had come apart. */
export interface Drift {
  /** Runs that held their lane though they may not. */
  leaked: string[]
  /** Runs in line that had lost the turn of their free lane. */
  dropped: string[]
  /** Lanes with waiting runs that nobody held. */
  idle: string[]
  last_event_id: number
}

/** Finds what has come apart, at most `limit` of each, and repairs it unless `dry`. */
export async function repairLanes(sql: Sql, limit: number, dry: boolean): Promise<Drift> {
  const [row] = await sql<{ drift: Drift }[]>`
    select runlane.repair_lanes(${limit}, ${dry}) as drift`
  if (!row) throw new Error('runlane.repair_lanes answered nothing')
  return row.drift
}

/**
 * Writes the report of a delegated run that has ended again where its parent goes on, has not taken it up, and has no letter
 * of it. Answers the parents, which are to get their mail.
 */
export async function repeatReports(sql: Sql, limit: number): Promise<string[]> {
  const rows = await sql<{ run_id: string }[]>`
    insert into runlane.run_inbox (run_id, kind, dedupe_key, payload, created_at)
    select p.run_id, 'report', 'report:' || c.run_id, jsonb_build_object('child_run_id', c.run_id), runlane.now()
    from runlane.agent_runs p join runlane.agent_runs c on c.parent_run_id = p.run_id
    where p.ended_at is null and c.ended_at is not null and not c.detached
      and not exists (select from runlane.run_inbox i where i.run_id = p.run_id and i.dedupe_key = 'report:' || c.run_id)
      and not exists (select from runlane.agent_events e where e.run_id = p.run_id
        and e.event_type in ('child_finished', 'delegation_cancelled') and e.payload ->> 'child_run_id' = c.run_id)
    order by c.ended_at limit ${limit}
    on conflict do nothing returning run_id`
  return rows.map((row) => row.run_id)
}

/** Shown with the node; null: it holds back no more. */
export async function setSystemic(sql: Sql, epoch: number, systemic: string | null): Promise<void> {
  await sql`update runlane.nodes set systemic = ${systemic} where epoch = ${epoch}`
}

/** An unfinished run somewhere below another one that waits for it. */
export interface Below {
  run_id: string
  parent_run_id: string
  /** Null: queued, waiting or parked. */
  owner_epoch: number | null
}

/** The deepest first. */
export async function openBelow(sql: Sql, runId: string): Promise<Below[]> {
  return sql<Below[]>`
    with recursive below as (
      select c.run_id, c.parent_run_id, c.owner_epoch, 1 as depth from runlane.agent_runs c
      where c.parent_run_id = ${runId} and c.ended_at is null and not c.detached
      union all
      select c.run_id, c.parent_run_id, c.owner_epoch, b.depth + 1 from below b join runlane.agent_runs c on c.parent_run_id = b.run_id
      where c.ended_at is null and not c.detached and b.depth < 20
    )
    select run_id, parent_run_id, owner_epoch from below order by depth desc, run_id limit 10000`
}

/** Takes runs of other nodes, to end them by force; `version`: only as they were seen. Answers those that it has. */
export async function seizeRuns(
  sql: Sql,
  runIds: string[],
  epoch: number,
  version: number | null,
): Promise<string[]> {
  const [row] = await sql<{ seized: string[] }[]>`
    select runlane.seize(${runIds}, ${epoch}, ${version}) as seized`
  return row?.seized ?? []
}
