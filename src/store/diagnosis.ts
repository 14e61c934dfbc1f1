import { rfc3339, type Sql } from './database.ts'
import type { CheckpointType, RowClock, RunStatus } from './rows.ts'

/** What the database knows about why a run waits; times are RFC 3339 text. */
export interface WaitFacts {
  run_id: string
  status: RunStatus
  detail: string | null
  status_since: string
  /** The moment of all that is here. */
  now: string
  agent: string
  run_at: string | null
  holds_lane: boolean
  lane_key: string
  stuck_reason: string | null
  stuck_since: string | null
  /** The tool call that it is stuck in, where it is stuck in one. */
  stuck_call: string | null
  phase: string | null
  tool: string | null
  attempt: number
  last_progress_at: string | null
  /** What its node counts with, as it was at `clock_at`; null: no clock counts. */
  clock: RowClock | null
  clock_at: string | null
  cancel_requested_at: string | null
  /** When the clock of its cancel began, which for a parent is its last child's end; null while one is not over. */
  cancel_since: string | null
  /** How long its queue was paused since it came into its status: no waiting time. */
  paused_ms: number
  /** The run that holds its lane, if another one does. */
  holder: { run_id: string; status: RunStatus; stuck_reason: string | null } | null
  /** Runs before it in the line of its lane. */
  ahead: number
  queue: {
    name: string
    concurrency: number | null
    active: number
    paused: boolean
    paused_by: string | null
    paused_at: string | null
    paused_reason: string | null
  }
  /** Nodes that claim runs. */
  serving: number
  /** Active runs that take a slot, of all nodes. */
  active: number
  /** Of a run in line: of those that take a slot one that is stuck, or else the one that began first. */
  slot_holder: {
    run_id: string
    agent: string
    status: RunStatus
    stuck_reason: string | null
    started_at: string
  } | null
  /** The node that hosts it; null when none does. */
  owner: {
    node_id: string
    status: string
    last_seen_at: string
    lease_ms: number
    lease_over: boolean
    /** Why it ends nobody at present although it would: too many of a class at once. */
    systemic: string | null
  } | null
  ended_at: string | null
  /** When a result of it came that is kept and not applied: after its end. */
  late_result_at: string | null
  error_code: string | null
  error_message: string | null
  checkpoint_type: CheckpointType | null
  /** Unsafe tool calls of a run that has ended, whose outcome is not known. */
  unknown_calls: string[]
  parent_run_id: string | null
  detached: boolean
  /** Delegated runs that are not over and that it waits for, stuck ones first, then the oldest; no more than twenty are named. */
  open_children: { run_id: string; agent: string; status: RunStatus; stuck_reason: string | null }[]
  open_child_count: number
  /** Tool calls in flight. */
  calls: { tool_call_id: string; tool: string; started_at: string }[]
  /** Letters to it that it has not taken up. */
  letters: number
  /** Delegated runs that have ended, of which it has neither a report nor a letter; no more than twenty are named. */
  unreported: string[]
  /** Its time has come. */
  due: boolean
  questions: {
    token_id: string
    kind: string
    /** Of the signal that is waited for. */
    name: string | null
    prompt: string
    created_at: string
    expires_at: string | null
  }[]
}

/** In one statement, so that the facts fit together. */
export async function waitFacts(sql: Sql, runId: string): Promise<WaitFacts | undefined> {
  const [row] = await sql<{ facts: WaitFacts }[]>`
    select json_build_object(
      'run_id', r.run_id, 'status', r.status, 'detail', r.detail, 'status_since', r.status_since, 'now', t.at,
      'agent', r.agent, 'run_at', r.run_at,
      'holds_lane', r.holds_lane, 'lane_key', r.lane_key, 'stuck_reason', r.stuck_reason, 'stuck_since', r.stuck_since,
      'stuck_call', r.chart -> 'context' ->> 'stuck_call',
      'phase', r.phase, 'tool', r.tool, 'attempt', r.attempt, 'last_progress_at', r.last_progress_at,
      'clock', r.clock, 'clock_at', r.clock_at,
      'cancel_since', (select case when bool_and(c.ended_at is not null) is not false
          then greatest(r.cancel_requested_at, max(c.ended_at)) end
        from runlane.agent_runs c where c.parent_run_id = r.run_id and c.cancel_requested_at is not null),
      'paused_ms', (select coalesce(round(extract(epoch from
          sum(p.resumed_at - greatest(p.paused_at, r.status_since))) * 1000), 0)
        from runlane.queue_pauses p where r.status in ('queued', 'waiting_on_lane') and p.queue = r.queue
          and p.resumed_at > r.status_since),
      'cancel_requested_at', r.cancel_requested_at, 'ended_at', r.ended_at, 'error_code', r.error_code,
      'error_message', r.error_message, 'checkpoint_type', r.checkpoint_type,
      'late_result_at', (select e.created_at from runlane.agent_events e where r.ended_at is not null
        and e.run_id = r.run_id and e.event_type = 'late_result' and e.sequence > (select s.sequence
          from runlane.agent_events s where s.run_id = r.run_id and s.event_type = 'run_status_changed'
          order by s.sequence desc limit 1) order by e.sequence desc limit 1),
      'unknown_calls', (select coalesce(json_agg(u.tool_call_id order by u.position), '[]')
        from runlane.agent_tool_results u where r.ended_at is not null and u.run_id = r.run_id and u.outcome = 'started'
          and u.kind = 'tool' and u.effects = 'unsafe'),
      'parent_run_id', r.parent_run_id, 'detached', r.detached,
      'open_child_count', (select count(*)::int from runlane.agent_runs c where c.parent_run_id = r.run_id
        and c.ended_at is null and not c.detached),
      'open_children', (select coalesce(json_agg(json_build_object('run_id', k.run_id, 'agent', k.agent,
          'status', k.status, 'stuck_reason', k.stuck_reason) order by k.stuck_reason is null, k.run_id), '[]')
        from (select c.run_id, c.agent, c.status, c.stuck_reason
        from runlane.agent_runs c where c.parent_run_id = r.run_id and c.ended_at is null and not c.detached
        order by c.stuck_reason is null, c.run_id limit 20) as k),
      'holder', (select json_build_object('run_id', h.run_id, 'status', h.status, 'stuck_reason', h.stuck_reason)
        from runlane.agent_runs h where h.lane_key = r.lane_key and h.holds_lane and h.run_id <> r.run_id),
      'ahead', (select count(*)::int from runlane.agent_runs a where r.status = 'waiting_on_lane'
        and a.lane_key = r.lane_key and a.status = 'waiting_on_lane' and a.lane_position < r.lane_position),
      'queue', (select json_build_object('name', q.name, 'concurrency', q.concurrency, 'paused', q.paused,
          'paused_by', q.paused_by, 'paused_at', q.paused_at, 'paused_reason', q.paused_reason,
          'active', (select count(*)::int from runlane.agent_runs b where b.owner_epoch is not null
            and b.queue = q.name and b.status <> 'waiting_on_child'))
        from runlane.queues q where q.name = r.queue),
      'serving', (select count(*)::int from runlane.nodes n where n.status = 'serving' and n.lease_until > t.at),
      'active', (select count(*)::int from runlane.agent_runs b where r.status = 'queued' and b.owner_epoch is not null
        and b.status <> 'waiting_on_child'),
      'slot_holder', (select json_build_object('run_id', b.run_id, 'agent', b.agent, 'status', b.status,
          'stuck_reason', b.stuck_reason, 'started_at', b.started_at)
        from runlane.agent_runs b where r.status = 'queued' and b.owner_epoch is not null
          and b.status <> 'waiting_on_child' order by b.stuck_reason is null, b.started_at, b.run_id limit 1),
      'owner', (select json_build_object('node_id', n.node_id, 'status', n.status, 'last_seen_at', n.last_seen_at,
          'lease_ms', round(extract(epoch from n.lease_until - n.last_seen_at) * 1000), 'lease_over', n.lease_until < t.at,
          'systemic', n.systemic) from runlane.nodes n where n.epoch = r.owner_epoch),
      'calls', (select coalesce(json_agg(json_build_object('tool_call_id', t.tool_call_id, 'tool', t.tool,
          'started_at', t.started_at) order by t.position), '[]')
        from runlane.agent_tool_results t where t.run_id = r.run_id and t.kind = 'tool' and t.outcome = 'started'),
      'due', coalesce(r.run_at <= t.at, false),
      'letters', (select count(*)::int from runlane.run_inbox i where i.run_id = r.run_id and i.due),
      'unreported', (select coalesce(json_agg(k.run_id order by k.run_id), '[]') from (select c.run_id
        from runlane.agent_runs c where r.ended_at is null and c.parent_run_id = r.run_id and c.ended_at is not null
          and not c.detached
          and not exists (select from runlane.run_inbox i
            where i.run_id = r.run_id and i.dedupe_key = 'report:' || c.run_id)
          and not exists (select from runlane.agent_events e where e.run_id = r.run_id
            and e.event_type in ('child_finished', 'delegation_cancelled')
            and e.payload ->> 'child_run_id' = c.run_id)
        order by c.run_id limit 20) as k),
      'questions', (select coalesce(json_agg(json_build_object('token_id', w.token_id, 'kind', w.kind,
          'name', w.name, 'prompt', w.prompt, 'created_at', w.created_at, 'expires_at', w.expires_at) order by w.created_at), '[]')
        from runlane.waitpoints w where w.run_id = r.run_id and w.status = 'pending')
    ) as facts
    from runlane.agent_runs r, (select runlane.now() as at) as t
    where r.run_id = ${runId}`
  return row && withTimes(row.facts)
}

/** Times within JSON are as Postgres writes them there: here they become what all other answers have. */
function withTimes(facts: WaitFacts): WaitFacts {
  const text = JSON.stringify(facts, (name, value: unknown) =>
    typeof value === 'string' && TIMES.has(name) ? rfc3339(value) : value,
  )
  return JSON.parse(text) as WaitFacts
}

const TIMES: ReadonlySet<string> = new Set([
  ...['status_since', 'stuck_since', 'run_at', 'last_progress_at', 'cancel_requested_at', 'now'],
  ...['clock_at', 'cancel_since', 'late_result_at'],
  ...['ended_at', 'paused_at', 'last_seen_at', 'started_at', 'created_at', 'expires_at'],
])
