-- What: the parts of a commit that SQL decides: joining a lane, its promotion, claims, adoption. Only runlane.commit
-- (next migration) calls what writes here, under its lock.
-- Locks: creates functions only. Safe online: yes.

-- Inserts new runs into their lanes and writes their first events. A run that finds its lane empty gets the turn at
-- once; the others wait. Repeated run ids (a retried flush) are left alone.
create function runlane.insert_runs(creates jsonb, at timestamptz) returns void language plpgsql
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
      root_run_id text, agent text, surface text, created_by text, owner text, lane_key text, front boolean, queue text,
      priority int, run_at timestamptz, chart jsonb, idempotency_key text, input jsonb, metadata jsonb, options jsonb)
    where not exists (select from runlane.agent_runs k where k.run_id = c.run_id)
    order by c.ord
  ), added as (
    insert into runlane.agent_runs (run_id, conversation_id, parent_run_id, root_run_id, agent, surface, created_by,
      owner, status, lane_key, lane_position, holds_lane, queue, priority, run_at, last_sequence, chart, line_events,
      line_since, checkpoint_id, checkpoint_type, idempotency_key, created_at, status_since)
    select run_id, conversation_id, parent_run_id, root_run_id, agent, surface, created_by, owner,
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

-- One request that is all or nothing (one run, or a batch), with everything that needs a locked look: keys seen
-- before, lane policies. Answers {"runs": [{run_id, existing}]} or {"refused": code, ...}.
create function runlane.create_group(members jsonb, at timestamptz) returns jsonb language plpgsql
set plan_cache_mode = force_generic_plan
as $$
declare
  member jsonb;
  known record;
  made jsonb := '[]';
begin
  for member in select value from jsonb_array_elements(members) loop
    -- Written before, by a flush whose reply was lost: judging it again would find the run itself in its way.
    if exists (select from runlane.agent_runs k where k.run_id = member ->> 'run_id') then
      made := made || jsonb_build_object('run_id', member ->> 'run_id', 'existing', false);
      continue;
    end if;
    if member ->> 'idempotency_key' is not null then
      select r.run_id, p.options ->> 'request_hash' as request_hash into known
      from runlane.agent_runs r join runlane.agent_run_payloads p using (run_id)
      where r.created_by = member ->> 'created_by' and r.idempotency_key = member ->> 'idempotency_key'
      union all
      select k.run_id, k.request_hash from runlane.replacement_keys k
      where k.created_by = member ->> 'created_by' and k.idempotency_key = member ->> 'idempotency_key';
      if known.run_id is not null then
        if known.request_hash is distinct from member -> 'options' ->> 'request_hash' then
          raise exception using errcode = 'RL001', message = jsonb_build_object('refused', 'idempotency_conflict',
            'run_id', known.run_id)::text;
        end if;
        made := made || jsonb_build_object('run_id', known.run_id, 'existing', known.run_id <> member ->> 'run_id');
        continue;
      end if;
    end if;
    if member ->> 'lane_policy' = 'reject' then
      -- Two look-ups of one row each: together as an "or" they would gather the whole lane.
      select coalesce(
        (select a.run_id from runlane.agent_runs a where a.lane_key = member ->> 'lane_key' and a.holds_lane limit 1),
        (select a.run_id from runlane.agent_runs a where a.lane_key = member ->> 'lane_key'
          and a.status = 'waiting_on_lane' limit 1)) as run_id into known;
      if known.run_id is not null then
        raise exception using errcode = 'RL001', message = jsonb_build_object('refused', 'lane_busy',
          'run_id', known.run_id)::text;
      end if;
    elsif member ->> 'lane_policy' = 'coalesce' then
      select r.run_id into known from runlane.agent_runs r
      where r.lane_key = member ->> 'lane_key' and r.agent = member ->> 'agent' and r.status = 'waiting_on_lane'
      order by r.lane_position desc limit 1;
      if known.run_id is not null then
        raise exception using errcode = 'RL001', message = jsonb_build_object('refused', 'coalesce',
          'run_id', known.run_id)::text;
      end if;
    elsif member ->> 'lane_policy' = 'interrupt' then
      -- The cancel of the holder is written with the run that asked for it: never one without the other.
      insert into runlane.run_commands (command_id, run_id, kind, payload, requested_by, reason, created_at)
      select member ->> 'interrupt_command_id', r.run_id, 'cancel', '{}', member ->> 'created_by',
        'interrupted by ' || (member ->> 'run_id'), at
      from runlane.agent_runs r where r.lane_key = member ->> 'lane_key' and r.holds_lane
      on conflict do nothing;
      insert into runlane.run_inbox (run_id, kind, dedupe_key, payload, created_at)
      select c.run_id, 'cancel', c.command_id, jsonb_build_object('command_id', c.command_id, 'by', c.requested_by,
        'reason', c.reason), at
      from runlane.run_commands c where c.command_id = member ->> 'interrupt_command_id'
      on conflict do nothing;
    end if;
    perform runlane.insert_runs(jsonb_build_array(member || jsonb_build_object('ord', 1)), at);
    made := made || jsonb_build_object('run_id', member ->> 'run_id', 'existing', false);
  end loop;
  return jsonb_build_object('runs', made);
exception when sqlstate 'RL001' then
  return sqlerrm::jsonb;
end $$;

-- Runs whose run_at has come join their lanes, heads of free lanes among `lanes` get the turn. `joined` maps the runs
-- that entered the line in this commit to the status they came from.
create function runlane.settle_lanes(lanes text[], joined jsonb, take_due boolean, at timestamptz) returns int
language plpgsql
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
as $$
declare
  due record;
  promoted int := 0;
begin
  if take_due then
    for due in
      with coming as materialized (
        select r.run_id from runlane.agent_runs r where r.status = 'queued' and not r.holds_lane and r.run_at <= at
        order by r.run_at, r.run_id limit 500
      ), placed as materialized (
        -- Positions are taken in this order; an update would take them in the order of its plan.
        select c.run_id, nextval('runlane.lane_position') as place from coming c
      )
      update runlane.agent_runs r set status = 'waiting_on_lane', lane_position = placed.place,
        line_events = r.line_events || 'run.due'::text, line_since = at, status_since = at, version = r.version + 1
      from placed where r.run_id = placed.run_id
      returning r.run_id, r.lane_key
    loop
      lanes := lanes || due.lane_key;
      joined := joined || jsonb_build_object(due.run_id, 'queued');
    end loop;
  end if;
  if cardinality(lanes) = 0 then
    return 0;
  end if;
  with head as (
    select distinct on (l.lane_key) h.run_id
    from unnest(lanes) as l (lane_key)
    cross join lateral (select w.run_id from runlane.agent_runs w
      where w.lane_key = l.lane_key and w.status = 'waiting_on_lane' order by w.lane_position limit 1) as h
    where not exists (select from runlane.agent_runs a where a.lane_key = l.lane_key and a.holds_lane)
  ), granted as (
    update runlane.agent_runs r set status = 'queued', holds_lane = true, version = r.version + 1, status_since = at,
      line_events = r.line_events || 'lane.granted'::text,
      last_sequence = r.last_sequence + case when joined ->> r.run_id = 'queued' then 0 else 1 end
    from head where r.run_id = head.run_id
    returning r.run_id, r.last_sequence, coalesce(joined ->> r.run_id, 'waiting_on_lane') as came_from
  ), told as (
    insert into runlane.agent_events (run_id, sequence, event_type, visibility, payload, created_at)
    select run_id, last_sequence, 'run_status_changed', 0,
      jsonb_build_object('from', came_from, 'to', 'queued', 'detail', null), at
    from granted where came_from <> 'queued'
  )
  select count(*) into promoted from granted;
  if joined <> '{}' then
    with waiting as (
      update runlane.agent_runs r set last_sequence = r.last_sequence + 1
      from jsonb_each_text(joined) as j (run_id, came_from)
      where r.run_id = j.run_id and r.status = 'waiting_on_lane'
      returning r.run_id, r.last_sequence, j.came_from
    )
    insert into runlane.agent_events (run_id, sequence, event_type, visibility, payload, created_at)
    select run_id, last_sequence, 'run_status_changed', 0,
      jsonb_build_object('from', came_from, 'to', 'waiting_on_lane', 'detail', null), at
    from waiting;
  end if;
  return promoted;
end $$;

-- Gives up to `wanted` runnable runs to a node: queues that are open, within their concurrency, by priority, then
-- arrival. A node that is not serving, or whose lease is over, gets none.
create function runlane.claim(claimer bigint, wanted int, at timestamptz) returns text[] language plpgsql
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
as $$
declare
  claimed text[];
begin
  if not exists (select from runlane.nodes n where n.epoch = claimer and n.status = 'serving' and n.lease_until > at) then
    return '{}';
  end if;
  with room as (
    select q.name, least(wanted, case when q.concurrency is null then wanted else q.concurrency - (
        select count(*)::int from runlane.agent_runs a
        where a.owner_epoch is not null and a.queue = q.name and a.status <> 'waiting_on_child') end) as free
    from runlane.queues q where not q.paused
  ), candidate as (
    select c.run_id from room
    cross join lateral (select r.run_id, r.priority, r.lane_position from runlane.agent_runs r
      where r.queue = room.name and r.status = 'queued' and r.holds_lane
      order by r.priority desc, r.lane_position limit greatest(room.free, 0)) as c
    order by c.priority desc, c.lane_position limit wanted
  ), taken as (
    update runlane.agent_runs r set owner_epoch = claimer, version = r.version + 1, record_id = null,
      status = case when r.attempt = 0 then 'running' else 'resuming' end,
      attempt = r.attempt + case when (r.chart -> 'context' -> 'handed_over')::boolean then 0 else 1 end,
      line_events = r.line_events || 'run.claimed'::text, last_sequence = r.last_sequence + 2,
      started_at = coalesce(r.started_at, at), status_since = at, last_heartbeat_at = at, last_progress_at = at
    from candidate c where r.run_id = c.run_id
    returning r.run_id, r.last_sequence, r.attempt, r.status, r.lane_position
  ), told as (
    insert into runlane.agent_events (run_id, sequence, event_type, visibility, payload, created_at)
    select t.run_id, t.last_sequence - 1 + e.nth, e.event_type, e.visibility, e.payload, at
    from taken t
    cross join lateral (values
      (0, 'lease_acquired', 2, jsonb_build_object('epoch', claimer, 'attempt', t.attempt)),
      (1, 'run_status_changed', 0, jsonb_build_object('from', 'queued', 'to', t.status, 'detail', null))
    ) as e (nth, event_type, visibility, payload)
  )
  select coalesce(array_agg(run_id), '{}') into claimed from taken;
  return claimed;
end $$;

-- Declares nodes dead whose lease is over (`all_others`: every other node, on an embedded database whose directory
-- lock proves it) and rewrites the owner of their runs, which fences the old one. The chart decides what follows.
create function runlane.adopt(adopter bigint, all_others boolean, wanted int, at timestamptz) returns text[]
language plpgsql as $$
declare
  adopted text[];
begin
  if not exists (select from runlane.nodes n where n.epoch = adopter and n.status = 'serving' and n.lease_until > at) then
    return '{}';
  end if;
  update runlane.nodes set status = 'dead'
  where status in ('serving', 'draining') and epoch <> adopter and (all_others or lease_until < at);
  with orphaned as (
    select r.run_id, r.owner_epoch from runlane.agent_runs r join runlane.nodes n on n.epoch = r.owner_epoch
    where r.owner_epoch is not null and n.status in ('dead', 'stopped') limit wanted
  ), taken as (
    update runlane.agent_runs r set owner_epoch = adopter, version = r.version + 1, last_sequence = r.last_sequence + 1,
      last_heartbeat_at = at, record_id = 'adopted'
    from orphaned o where r.run_id = o.run_id
    returning r.run_id, r.last_sequence, o.owner_epoch as lost_epoch
  ), told as (
    insert into runlane.agent_events (run_id, sequence, event_type, visibility, payload, created_at)
    select run_id, last_sequence, 'lease_lost', 2, jsonb_build_object('epoch', lost_epoch, 'adopted_by', adopter), at
    from taken
  )
  select coalesce(array_agg(run_id), '{}') into adopted from taken;
  return adopted;
end $$;

-- What a node needs to host runs: the row and its payloads, in the order asked for. json, not jsonb: it is built once
-- and sent, and as text it is built in half the time.
create function runlane.hosted_runs(ids text[]) returns json language sql stable as $$
  select coalesce(json_agg(row_to_json(h) order by h.nth), '[]')
  from (
    select r.*, p.input, p.metadata, p.options, i.nth
    from unnest(ids) with ordinality as i (run_id, nth)
    join runlane.agent_runs r using (run_id)
    join runlane.agent_run_payloads p using (run_id)
  ) as h
$$;
