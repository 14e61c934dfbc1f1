-- What: deliveries of webhooks, and the commit that writes them with the events they tell of.
-- Locks: one new table, new functions; the commit function itself is left as it is, so flushes without a notice cost what
-- they did. Safe online: yes; runs that a node of the former version ends meanwhile send no notice.

create table runlane.webhook_deliveries (
  delivery_id bigint generated always as identity primary key,
  event_id bigint not null,
  run_id text collate "C" not null,
  -- Of the CloudEvent: runlane.run.completed, …
  type text not null,
  url text not null,
  -- Host and port of the URL: receivers take turns by it.
  host text not null,
  -- What is told: the event, and the run as the event's commit left it. Null when the delivery is over.
  notice jsonb,
  attempts int not null default 0,
  -- When it may be tried (again). A claim moves it to the end of the claimer's lease.
  next_attempt_at timestamptz not null,
  last_status int,
  last_error text,
  created_at timestamptz not null,
  finished_at timestamptz,
  outcome text,
  constraint webhook_deliveries_outcome_known check (outcome in ('delivered', 'gone', 'given_up')),
  constraint webhook_deliveries_finished check ((outcome is not null) = (finished_at is not null)
    and (notice is null) = (finished_at is not null))
);
create index webhook_deliveries_due on runlane.webhook_deliveries (host, next_attempt_at) where finished_at is null;
-- What is too old: the open ones by their creation, the finished ones by their end.
create index webhook_deliveries_age on runlane.webhook_deliveries (finished_at, created_at);

-- Writes the deliveries of the notices among the records that a flush has written (`accepted`; null: all of them).
create function runlane.write_deliveries(deliveries jsonb, accepted text[]) returns void language plpgsql volatile
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
as $$
begin
  insert into runlane.webhook_deliveries (event_id, run_id, type, url, host, notice, next_attempt_at, created_at)
  select e.id, e.run_id, x.type, x.url, x.host,
    jsonb_build_object(
      'event', jsonb_build_object('event_type', e.event_type, 'sequence', e.sequence, 'payload', e.payload),
      'run', to_jsonb(r) - '{chart,line_events,lane_position,idempotency_key,record_id,version}'::text[]
        || jsonb_build_object('metadata', p.metadata, 'traceparent', p.options ->> 'traceparent',
          'forked_from', p.options -> 'forked_from',
          'orphan', r.owner_epoch is not null and coalesce((r.chart -> 'context' -> 'orphan')::boolean, false),
          'output', case when x.with_output then p.output end,
          'node_id', (select n.node_id from runlane.nodes n where n.epoch = r.owner_epoch),
          'age_ms', extract(epoch from coalesce(r.ended_at, e.created_at) - r.created_at) * 1000,
          'unknown_calls', array(select t.tool_call_id from runlane.agent_tool_results t
            where t.run_id = r.run_id and t.outcome = 'started' and t.kind = 'tool' and t.effects = 'unsafe'
              and r.status in ('failed', 'timed_out')
            order by t.position))),
    e.created_at, e.created_at
  from jsonb_to_recordset(deliveries) as x (run_id text, sequence int, type text, url text, host text,
    with_output boolean)
  join runlane.agent_events e on e.run_id = x.run_id and e.sequence = x.sequence
  join runlane.agent_runs r on r.run_id = x.run_id
  join runlane.agent_run_payloads p on p.run_id = x.run_id
  where accepted is null or x.run_id = any (accepted);
end $$;

-- Writes a flush as runlane.commit does, and in the same transaction the deliveries of its notices: none of them is lost
-- with the node, and none is sent of what was not written.
create function runlane.commit_and_notify(flush jsonb) returns json language plpgsql volatile as $$
declare
  answer json := runlane.commit(flush);
begin
  perform runlane.write_deliveries(flush -> 'deliveries', case when json_typeof(answer -> 'accepted') = 'array'
    then array(select json_array_elements_text(answer -> 'accepted')) end);
  return answer;
end $$;

-- Takes due deliveries of these hosts, at most `most` of each, the longest due first, and keeps others away from them for a
-- while. Always by the index, in its order: with statistics of a long backlog the planner would rather sort all of it.
create function runlane.claim_deliveries(hosts jsonb, lease_ms int) returns setof runlane.webhook_deliveries
language plpgsql volatile
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
set enable_bitmapscan = off set enable_sort = off
as $$
begin
  return query
  with due as (
    select one.delivery_id
    from jsonb_to_recordset(hosts) as h (host text, most int)
    cross join lateral (select d.delivery_id from runlane.webhook_deliveries d
      where d.finished_at is null and d.host = h.host and d.next_attempt_at <= (select runlane.now())
      order by d.next_attempt_at limit h.most for update skip locked) as one
  )
  update runlane.webhook_deliveries d set attempts = d.attempts + 1,
    next_attempt_at = runlane.now() + lease_ms * interval '1 millisecond'
  from due where d.delivery_id = due.delivery_id
  returning d.*;
end $$;
