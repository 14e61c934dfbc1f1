import type { Json } from '../json.ts'
import type { Sql } from './database.ts'

/** What is recorded of the cancel that a run is under, or has ended by. */
export interface CancelFacts {
  /** The command; null where the cancel of another run, or the policy of a lane, has led to it. */
  asked: { at: string; by: string; reason: string | null } | null
  /** Its event in the run: the commit that brought it there. */
  heard: { at: string; payload: Record<string, Json> } | null
  /** The change of status to `cancelled`. */
  ended: { at: string; payload: Record<string, Json> } | null
}

/**
 * CancelFacts of the run `r`, null of one that nobody has asked to end. The commit that brings a cancel to its run gives
 * the command, the event and the run one time, which is what finds them: a run that was resumed may know older ones.
 */
export const cancelFacts = (sql: Sql) => sql`
  (select jsonb_build_object('asked', to_jsonb(a), 'heard', to_jsonb(h), 'ended', to_jsonb(e))
  from (select) as always
  left join lateral (
    select c.created_at as at, c.requested_by as by, c.reason from runlane.run_commands c
    where c.run_id = r.run_id and c.kind in ('cancel', 'stop', 'interrupt') and r.ended_at is null
      and r.cancel_requested_at is null and c.status = 'pending'
      or c.run_id = r.run_id and c.kind in ('cancel', 'stop', 'interrupt') and c.applied_at = r.cancel_requested_at
    order by c.created_at, c.command_id limit 1) as a on true
  left join lateral (
    select v.created_at as at, v.payload from runlane.agent_events v
    where v.run_id = r.run_id and v.event_type = 'cancel_requested' and v.created_at = r.cancel_requested_at
    order by v.sequence desc limit 1) as h on r.cancel_requested_at is not null
  left join lateral (
    select v.created_at as at, v.payload from runlane.agent_events v
    where v.run_id = r.run_id and v.event_type = 'run_status_changed'
    order by v.sequence desc limit 1) as e on r.status = 'cancelled'
  where r.cancel_requested_at is not null or a.at is not null)`
