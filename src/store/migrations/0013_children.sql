-- What: delegation. Child runs are made in the commit of their parent's decision; their end comes to the parent's inbox
-- in the commit that ends them, and a parent's cancel to theirs in the commit of the cancel.
-- Locks: two columns with constant defaults, functions. Safe online: yes.

alter table runlane.agent_runs add column children int not null default 0;
alter table runlane.agent_runs add column detached boolean not null default false;

-- Inserts new runs into their lanes and writes their first events. A run that finds its lane empty gets the turn at
-- once; the others wait. Repeated run ids (a retried flush) are left alone.
create or replace function runlane.insert_runs(creates jsonb, at timestamptz) returns void language plpgsql
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
as $$
begin
  with asked as (
    select c.*, c.run_at is null
        and row_number() over (partition by c.lane_key, c.run_at is null order by c.ord) = 1
        and not exists (select from runlane.agent_runs a where a.lane_key = c.lane_key and a.holds_lane)
        and not exists (select from runlane.agent_runs a where a.lane_key = c.lane_key and a.status = 'waiting_on_lane')
        as first_of_lane
    from jsonb_to_recordset(creates) as c (ord int, run_id text, conversation_id text, parent_run_id text,
      root_run_id text, detached boolean, agent text, surface text, created_by text, owner text, lane_key text, front boolean, queue text,
      priority int, run_at timestamptz, chart jsonb, idempotency_key text, input jsonb, metadata jsonb, options jsonb)
    where not exists (select from runlane.agent_runs k where k.run_id = c.run_id)
    order by c.ord
  ), added as (
    insert into runlane.agent_runs (run_id, conversation_id, parent_run_id, root_run_id, detached, agent, surface, created_by,
      owner, status, lane_key, lane_position, holds_lane, queue, priority, run_at, last_sequence, chart, line_events,
      line_since, checkpoint_id, checkpoint_type, idempotency_key, created_at, status_since)
    select run_id, conversation_id, parent_run_id, root_run_id, coalesce(detached, false), agent, surface, created_by, owner,
      case when run_at is not null or first_of_lane then 'queued' else 'waiting_on_lane' end,
      lane_key,
      case when run_at is null then nextval('runlane.lane_position') * case when front then -1 else 1 end end,
      first_of_lane, queue, priority, run_at, 3, chart,
      case when first_of_lane then array['lane.granted'] else '{}' end,
      at, run_id || '.3', 'input', idempotency_key, at, at
    from asked
    returning run_id, status, agent, surface, lane_key, queue, conversation_id
  ), payloads as (
    insert into runlane.agent_run_payloads (run_id, input, metadata, options)
    select run_id, input, coalesce(metadata, '{}'), coalesce(options, '{}') from asked
  )
  insert into runlane.agent_events (run_id, sequence, event_type, visibility, payload, created_at)
  select a.run_id, e.sequence, e.event_type, e.visibility, e.payload, at
  from added a
  cross join lateral (values
    (1, 'run_created', 0, jsonb_build_object('agent', a.agent, 'surface', a.surface, 'lane_key', a.lane_key,
      'queue', a.queue)),
    (2, 'run_status_changed', 0, jsonb_build_object('from', null, 'to', a.status, 'detail', null)),
    (3, 'checkpoint_created', 2, jsonb_build_object('checkpoint_id', a.run_id || '.3', 'type', 'input'))
  ) as e (sequence, event_type, visibility, payload);
end $$;

-- What a child run tells its parent when it is over; null before. A child that has timed out has failed.
create function runlane.child_report(child text) returns jsonb language sql stable as $$
  select case r.status
    when 'completed' then jsonb_build_object('child_run_id', r.run_id, 'status', 'completed', 'output', p.output,
      'error_message', null)
    when 'cancelled' then (
      select jsonb_build_object('child_run_id', r.run_id, 'status', 'delegation_cancelled', 'output', null,
        'error_message', concat_ws(': ', 'cancelled by ' || coalesce(c.payload ->> 'by', 'the runtime'),
          c.payload ->> 'reason'), 'by', c.payload ->> 'by', 'reason', c.payload ->> 'reason')
      from (select 1) as always left join lateral (
        select e.payload from runlane.agent_events e where e.run_id = r.run_id and e.event_type = 'cancel_requested'
        order by e.sequence limit 1) as c on true)
    else jsonb_build_object('child_run_id', r.run_id, 'status', 'failed', 'output', null,
      'error_message', r.error_message,
      'error_code', case r.status when 'timed_out' then 'timed_out' else r.error_code end)
    end
  from runlane.agent_runs r join runlane.agent_run_payloads p using (run_id)
  where r.run_id = child and r.ended_at is not null
$$;

-- Letters within the tree of a run: cancels to the open children of those that `cascades` names, reports of the children
-- that have ended to parents that go on. Answers whom letters were written to. A letter that is there already stays.
create function runlane.tell_family(cascades jsonb, accepted text[], reporting text[], at timestamptz) returns text[]
language sql volatile as $$
  with letters as (
    select c.run_id, 'cancel' as kind, 'cascade' as dedupe_key,
      jsonb_build_object('by', x.by, 'role', 'system', 'reason', x.reason) as payload
    from jsonb_to_recordset(cascades) as x (run_id text, by text, reason text)
    join runlane.agent_runs c on c.parent_run_id = x.run_id
    where x.run_id = any (accepted) and c.ended_at is null and not c.detached
    union all
    select p.run_id, 'report', 'report:' || c.run_id, jsonb_build_object('child_run_id', c.run_id)
    from unnest(reporting) as e (run_id) join runlane.agent_runs c using (run_id)
    join runlane.agent_runs p on p.run_id = c.parent_run_id
    where p.ended_at is null
  ), written as (
    insert into runlane.run_inbox (run_id, kind, dedupe_key, payload, created_at)
    select distinct on (run_id, dedupe_key) run_id, kind, dedupe_key, payload, at from letters
    on conflict do nothing
    returning run_id
  )
  select coalesce(array_agg(distinct run_id), '{}') from written
$$;
