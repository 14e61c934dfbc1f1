import type { Json } from '../json.ts'
import type { Sql } from './database.ts'
import type { RunView } from './runs.ts'

/** A delivery that this node may try now, until its lease is over. */
export interface DueDelivery {
  delivery_id: number
  event_id: number
  run_id: string
  type: string
  url: string
  host: string
  /** The event's time. */
  created_at: string
  /** With the one that is due; tells a later claim of the same delivery apart. */
  attempts: number
  notice: Notice
}

export interface Notice {
  event: { event_type: string; sequence: number; payload: Record<string, Json> }
  /** As the event's commit left it. Its times are as Postgres writes them. */
  run: RunView & { output: Json }
}

/** What an attempt came to, for people who look into the table. */
export interface AttemptNote {
  status: number | null
  error: string | null
}

/**
 * Hosts (with port) that have a delivery due, in their order from `after` on, without those in `busy`.
 *
 * One probe of the index for each host that has an open delivery: however many of them wait for one slow receiver, the
 * others are found as fast.
 */
export async function dueHosts(
  sql: Sql,
  { after, busy, limit }: { after: string; busy: string[]; limit: number },
): Promise<string[]> {
  const rows = await sql<{ host: string }[]>`
    with recursive open as (
      (select d.host from runlane.webhook_deliveries d where d.finished_at is null and d.host > ${after}
        order by d.host limit 1)
      union all
      select (select d.host from runlane.webhook_deliveries d where d.finished_at is null and d.host > open.host
        order by d.host limit 1)
      from open where open.host is not null
    )
    select open.host from open
    where open.host is not null and open.host <> all (${busy}) and exists (
      select from runlane.webhook_deliveries d where d.finished_at is null and d.host = open.host
        and d.next_attempt_at <= (select runlane.now()))
    limit ${limit}`
  return rows.map(({ host }) => host)
}

/**
 * Takes due deliveries of these hosts, at most `most` of each, the longest due first. Nobody else gets them for `leaseMs`;
 * then whoever is first, since whoever took them has died or lost the database.
 */
export async function claimDeliveries(
  sql: Sql,
  hosts: { host: string; most: number }[],
  leaseMs: number,
): Promise<DueDelivery[]> {
  return sql<DueDelivery[]>`
    select delivery_id, event_id, run_id, type, url, host, created_at, attempts, notice
    from runlane.claim_deliveries(${JSON.stringify(hosts)}::text::jsonb, ${leaseMs})`
}

/** The delivery is over: `delivered`, or `gone` when its receiver wants no more of it. */
export async function finishDelivery(
  sql: Sql,
  { delivery_id }: DueDelivery,
  outcome: 'delivered' | 'gone',
  { status, error }: AttemptNote,
): Promise<void> {
  await sql`
    update runlane.webhook_deliveries set finished_at = runlane.now(), outcome = ${outcome}, notice = null,
      last_status = ${status}, last_error = ${error}
    where delivery_id = ${delivery_id} and finished_at is null`
}

/**
 * Has it tried again after `delayMs`; gives it up when that would be later than `lifeMs` after the event. True: given up.
 * Does nothing when somebody else has taken it meanwhile.
 */
export async function postponeDelivery(
  sql: Sql,
  { delivery_id, attempts }: DueDelivery,
  { delayMs, lifeMs }: { delayMs: number; lifeMs: number },
  { status, error }: AttemptNote,
): Promise<boolean> {
  const rows = await sql<{ given_up: boolean }[]>`
    update runlane.webhook_deliveries d set last_status = ${status}, last_error = ${error},
      next_attempt_at = n.next,
      finished_at = case when n.over then n.at end,
      outcome = case when n.over then 'given_up' end,
      notice = case when not n.over then d.notice end
    from (
      select w.delivery_id, m.at, m.next, m.next > w.created_at + ${lifeMs} * interval '1 millisecond' as over
      from runlane.webhook_deliveries w
      cross join lateral (select t.at, t.at + ${delayMs} * interval '1 millisecond' as next
        from (select runlane.now() as at) as t) as m
      where w.delivery_id = ${delivery_id}
    ) as n
    where d.delivery_id = n.delivery_id and d.attempts = ${attempts} and d.finished_at is null
    returning d.finished_at is not null as given_up`
  return rows[0]?.given_up ?? false
}

/** Gives up open deliveries of events older than `lifeMs`, at most `limit`; answers how many. */
export async function expireDeliveries(sql: Sql, lifeMs: number, limit: number): Promise<number> {
  const rows = await sql`
    update runlane.webhook_deliveries set finished_at = runlane.now(), outcome = 'given_up', notice = null,
      last_error = coalesce(last_error, 'its turn did not come in time')
    where delivery_id in (select d.delivery_id from runlane.webhook_deliveries d
      where d.finished_at is null and d.created_at < (select runlane.now()) - ${lifeMs} * interval '1 millisecond'
        and d.next_attempt_at <= (select runlane.now())
      order by d.created_at limit ${limit} for update skip locked)
    returning delivery_id`
  return rows.length
}

/** Deletes deliveries that were over longer ago than `retentionMs`, at most `limit`; answers how many. */
export async function deleteDeliveries(
  sql: Sql,
  retentionMs: number,
  limit: number,
): Promise<number> {
  const rows = await sql`
    delete from runlane.webhook_deliveries where delivery_id in (select d.delivery_id from runlane.webhook_deliveries d
      where d.finished_at < (select runlane.now()) - ${retentionMs} * interval '1 millisecond'
      order by d.finished_at limit ${limit} for update skip locked)
    returning delivery_id`
  return rows.length
}
