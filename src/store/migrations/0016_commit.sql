-- What: the commit of a flush, with children, signals and questions that nobody answers any more; taking runs by force;
-- a run comes to its node with what was asked of it on its way.
-- Locks: functions. Safe online: yes.

-- Takes runs of other nodes for one that ends them by force: what their owners still write is refused from now on.
-- `expected`: only at this version. Answers those that it has, taken now or before.
create function runlane.seize(ids text[], by_epoch bigint, expected bigint) returns text[] language plpgsql volatile as $$
begin
  perform pg_advisory_xact_lock(7420);
  update runlane.agent_runs r set owner_epoch = by_epoch, version = r.version + 1, record_id = 'seized'
  where r.run_id = any (ids) and r.owner_epoch is not null and r.owner_epoch <> by_epoch
    and (expected is null or r.version = expected)
    -- Who is taken for dead may not.
    and exists (select from runlane.nodes n where n.epoch = by_epoch and n.status in ('serving', 'draining')
      and n.lease_until > runlane.now());
  if found then
    -- Their owners are to let go of them.
    perform pg_notify('runlane', by_epoch || ' seized');
  end if;
  return array(select r.run_id from runlane.agent_runs r
    where r.run_id = any (ids) and r.owner_epoch = by_epoch and r.record_id = 'seized');
end $$;

-- What a node needs to host runs: the row, its payloads, and its `ending_mail`: unread letters that ask for its end, or
-- surely lead to it, since they ask for the end of a run above it. A node that gets a run has them before it begins anything.
-- In the order asked for. json, not jsonb: it is built once and sent, and as text it is built in half the time. plpgsql keeps
-- its plan, which takes longer to make than one run takes to read.
create or replace function runlane.hosted_runs(ids text[]) returns json language plpgsql stable
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
as $$
begin
  return (
    with recursive line as (
      select r.run_id as of_run, r.run_id, r.parent_run_id, r.detached from runlane.agent_runs r where r.run_id = any (ids)
      union all
      select l.of_run, above.run_id, above.parent_run_id, above.detached
      from line l join runlane.agent_runs above on above.run_id = l.parent_run_id and above.ended_at is null
      where not l.detached
    ), mail as (
      select l.of_run, json_agg(to_json(m) order by m.id) as letters
      from line l cross join lateral (
        select i.id, i.run_id, i.kind, i.name, i.dedupe_key, i.payload from runlane.run_inbox i
        where i.run_id = l.run_id and i.due and (i.kind in ('cancel', 'stop', 'interrupt')
          -- A run above may recover before it hears of one that is without force.
          or i.kind = 'recycle' and (l.run_id = l.of_run or (i.payload -> 'force')::boolean))
        order by i.id limit 100) as m
      group by l.of_run
    )
    select coalesce(json_agg(row_to_json(h) order by h.nth), '[]')
    from (
      select r.*, p.input, p.metadata, p.options, m.letters as ending_mail, i.nth
      from unnest(ids) with ordinality as i (run_id, nth)
      join runlane.agent_runs r using (run_id)
      join runlane.agent_run_payloads p using (run_id)
      left join mail m on m.of_run = r.run_id
    ) as h);
end $$;

-- Writes one flush: what the actors of a node have decided, in one transaction. Answers what was refused (fenced, or
-- lost a race on version), what was created, claimed and adopted, and the highest event id.
create or replace function runlane.commit(flush jsonb) returns json language plpgsql volatile
set plan_cache_mode = force_generic_plan set enable_hashjoin = off set enable_mergejoin = off set enable_seqscan = off
as $$
declare
  at timestamptz;
  accepted text[] := '{}';
  whole boolean := true;
  lanes text[] := '{}';
  joined jsonb := '{}';
  groups jsonb := '[]';
  claimed text[] := '{}';
  adopted text[] := '{}';
  reporting text[] := '{}';
  ended text[] := '{}';
  mail text[] := '{}';
begin
  perform pg_advisory_xact_lock(7420);
  at := runlane.now();

  if flush ? 'creates' then
    perform runlane.insert_runs(flush -> 'creates', at);
  end if;
  if flush ? 'groups' then
    select jsonb_agg(runlane.create_group(g.members, at) || jsonb_build_object('group_id', g.group_id) order by g.ord)
    into groups
    from jsonb_to_recordset(flush -> 'groups') as g (ord int, group_id text, members jsonb);
  end if;

  if flush ? 'records' then
    with changed as (
      update runlane.agent_runs r set
        version = r.version + 1, record_id = x.record_id, last_sequence = x.last_sequence,
        owner_epoch = case when x.releases then null else r.owner_epoch end,
        status = x.status, detail = x.detail, holds_lane = x.holds_lane, attempt = x.attempt,
        chart = coalesce(x.chart, r.chart),
        line_events = case when x.chart is null then r.line_events else '{}' end,
        line_since = case when x.joins_from is null then r.line_since else at end,
        status_since = case when x.status = r.status then r.status_since else at end,
        cancel_requested_at = case when x.cancel_requested then coalesce(r.cancel_requested_at, at) end,
        phase = x.phase, saying = x.saying, tool = x.tool, error_code = x.error_code, error_message = x.error_message,
        checkpoint_id = x.checkpoint_id, checkpoint_type = x.checkpoint_type, model = coalesce(x.model, r.model),
        input_tokens = coalesce(x.input_tokens, r.input_tokens), output_tokens = coalesce(x.output_tokens, r.output_tokens),
        ended_at = case when x.ends then coalesce(r.ended_at, at) end,
        turn_extended_ms = coalesce(x.turn_extended_ms, r.turn_extended_ms),
        children = coalesce(x.children, r.children), stuck_reason = x.stuck_reason, stuck_since = case when x.stuck_reason = r.stuck_reason then r.stuck_since
          when x.stuck_reason is not null then at end,
        last_heartbeat_at = at,
        last_progress_at = case when x.progress is false then r.last_progress_at else at end,
        clock = x.clock, clock_at = case when x.clock is not null then at end
      from jsonb_to_recordset(flush -> 'records') as x (run_id text, owner_epoch bigint, version bigint, record_id text,
        last_sequence int, status text, detail text, holds_lane boolean, attempt int, chart jsonb, releases boolean,
        joins_from text, frees_lane boolean, ends boolean, cancel_requested boolean, phase text, saying text, tool text,
        error_code text, error_message text, checkpoint_id text, checkpoint_type text, model text, stuck_reason text,
        turn_extended_ms bigint, children int, progress boolean, clock jsonb,
        input_tokens bigint, output_tokens bigint)
      where r.run_id = x.run_id and r.version = x.version and r.owner_epoch is not distinct from x.owner_epoch
      returning r.run_id, r.lane_key, x.frees_lane, x.joins_from, x.status in ('completed', 'cancelled') as ended,
        x.ends and r.parent_run_id is not null and not r.detached as reports
    )
    select coalesce(array_agg(c.run_id), '{}'),
      coalesce(array_agg(c.lane_key) filter (where c.frees_lane or c.joins_from is not null), '{}'),
      coalesce(jsonb_object_agg(c.run_id, c.joins_from) filter (where c.joins_from is not null), '{}'),
      coalesce(array_agg(c.run_id) filter (where c.reports), '{}'), coalesce(array_agg(c.run_id) filter (where c.ended), '{}')
    into accepted, lanes, joined, reporting, ended from changed c;
    whole := cardinality(accepted) = jsonb_array_length(flush -> 'records');
  end if;

  if flush ? 'events' then
    insert into runlane.agent_events (run_id, sequence, event_type, visibility, payload, created_at)
    select e.run_id, e.sequence, e.event_type, e.visibility, e.payload, at
    from jsonb_to_recordset(flush -> 'events') as e (run_id text, sequence int, event_type text, visibility smallint,
      payload jsonb)
    where whole or e.run_id = any (accepted);
  end if;
  if flush ? 'children' then
    -- A child exists if and only if the decision of its parent does.
    perform runlane.insert_runs(coalesce(jsonb_agg(c), '[]'), at) from jsonb_array_elements(flush -> 'children') as c
    where whole or c ->> 'parent_run_id' = any (accepted);
  end if;
  if flush ? 'cascades' or cardinality(reporting) > 0 then
    mail := runlane.tell_family(coalesce(flush -> 'cascades', '[]'), accepted, reporting, at);
  end if;
  if flush ? 'forgotten' then
    -- A human said "retry": the call of unknown outcome is as if never started.
    delete from runlane.agent_tool_results t using jsonb_to_recordset(flush -> 'forgotten') as x (run_id text, tool_call_id text)
    where t.run_id = x.run_id and t.tool_call_id = x.tool_call_id and t.outcome = 'started'
      and (whole or x.run_id = any (accepted));
  end if;
  if flush ? 'results' then
    insert into runlane.agent_tool_results as t (run_id, tool_call_id, provider_call_id, position, settled, kind, tool,
      args_hash, input, effects, outcome, result, error_message, attempt, started_at, finished_at, duration_ms,
      begun_after, settled_after)
    select x.run_id, x.tool_call_id, x.provider_call_id, x.position,
      -- An answer given while the run is parked settles after all that is recorded.
      case when x.settled is null and x.outcome <> 'started' then (select coalesce(max(s.settled), 0) + 1
        from runlane.agent_tool_results s where s.run_id = x.run_id) else x.settled end, x.kind, x.tool, x.args_hash, x.input, x.effects, x.outcome, x.result,
      x.error_message, x.attempt, at, case when x.outcome <> 'started' then at end, x.duration_ms, x.begun_after, x.settled_after
    from jsonb_to_recordset(flush -> 'results') as x (run_id text, tool_call_id text, provider_call_id text, position int, settled int, kind text,
      tool text, args_hash text, input jsonb, effects text, outcome text, result jsonb, error_message text, attempt int,
      duration_ms int, begun_after int, settled_after int)
    where whole or x.run_id = any (accepted)
    on conflict (run_id, tool_call_id) do update set outcome = excluded.outcome, settled = excluded.settled,
      result = excluded.result, error_message = excluded.error_message, attempt = excluded.attempt,
      finished_at = excluded.finished_at, duration_ms = excluded.duration_ms,
      settled_after = excluded.settled_after
      where t.outcome = 'started';
  end if;
  if flush ? 'payloads' then
    update runlane.agent_run_payloads p set output = coalesce(x.output, p.output), input = coalesce(x.input, p.input)
    from jsonb_to_recordset(flush -> 'payloads') as x (run_id text, output jsonb, input jsonb)
    where p.run_id = x.run_id and (whole or x.run_id = any (accepted));
  end if;
  if flush ? 'keys' then
    insert into runlane.replacement_keys (created_by, idempotency_key, run_id, request_hash)
    select x.created_by, x.idempotency_key, x.run_id, x.request_hash
    from jsonb_to_recordset(flush -> 'keys') as x (created_by text, idempotency_key text, run_id text, request_hash text)
    where whole or x.run_id = any (accepted)
    on conflict do nothing;
  end if;
  if flush ? 'journals' then
    -- Several updates of one journal may share a flush (two steps of a run, two runs of a conversation): the later wins.
    insert into runlane.agent_run_journals as j (journal_key, content, run_id, updated_at)
    select x.journal_key, coalesce(jsonb_object_agg(e.key, e.value order by x.nth) filter (where e.key is not null), '{}'),
      (array_agg(x.run_id order by x.nth desc))[1], at
    from rows from (jsonb_to_recordset(flush -> 'journals') as (journal_key text, content jsonb, run_id text))
      with ordinality as x (journal_key, content, run_id, nth)
    left join lateral jsonb_each(x.content) as e on true
    where whole or x.run_id = any (accepted)
    group by x.journal_key
    on conflict (journal_key) do update set content = j.content || excluded.content, run_id = excluded.run_id,
      updated_at = excluded.updated_at;
  end if;
  if flush ? 'waitpoints' then
    insert into runlane.waitpoints as w (token_id, run_id, kind, name, tool_call_id, prompt, schema, status, data, created_at,
      completed_at, completed_by)
    select x.token_id, x.run_id, x.kind, x.name, x.tool_call_id, x.prompt, x.schema, x.status, x.data, at,
      case when x.status <> 'pending' then at end, x.completed_by
    from jsonb_to_recordset(flush -> 'waitpoints') as x (token_id text, run_id text, kind text, name text, tool_call_id text,
      prompt text, schema jsonb, status text, data jsonb, completed_by text)
    where whole or x.run_id = any (accepted)
    on conflict (token_id) do update set status = excluded.status, data = excluded.data,
      completed_at = excluded.completed_at, completed_by = excluded.completed_by
      where w.status = 'pending';
  end if;
  if flush ? 'withdrawn' then
    -- Parked runs that have ended: nobody waits for an answer any more.
    update runlane.waitpoints w set status = 'cancelled', completed_at = at
    from jsonb_to_recordset(flush -> 'withdrawn') as x (run_id text)
    where w.run_id = x.run_id and w.status = 'pending' and (whole or x.run_id = any (accepted));
  end if;
  if flush ? 'commands' then
    -- The letter goes out with its command and never again: a repeated command must not revive a consumed letter.
    with written as (
      insert into runlane.run_commands (command_id, run_id, kind, payload, requested_by, reason, created_at)
      select x.command_id, x.run_id, x.kind, x.payload, x.requested_by, x.reason, at
      from jsonb_to_recordset(flush -> 'commands') as x (command_id text, run_id text, kind text, payload jsonb,
        requested_by text, reason text)
      on conflict do nothing
      returning command_id, run_id, kind, payload, requested_by, reason
    )
    insert into runlane.run_inbox (run_id, kind, dedupe_key, payload, created_at)
    select w.run_id, w.kind, w.command_id, w.payload || jsonb_build_object('command_id', w.command_id,
      'by', w.requested_by, 'reason', w.reason), at
    from written w
    on conflict do nothing;
  end if;
  if flush ? 'outcomes' then
    update runlane.run_commands c set status = x.status, outcome = x.outcome, applied_at = at
    from jsonb_to_recordset(flush -> 'outcomes') as x (run_id text, command_id text, status text, outcome text)
    where c.command_id = x.command_id and c.status = 'pending' and (whole or x.run_id = any (accepted));
  end if;
  if flush ? 'consumed' then
    delete from runlane.run_inbox i using jsonb_to_recordset(flush -> 'consumed') as x (run_id text, dedupe_key text)
    where i.run_id = x.run_id and i.dedupe_key = x.dedupe_key and (whole or x.run_id = any (accepted));
  end if;
  if flush ? 'signals' or flush ? 'waitpoints' or cardinality(ended) > 0 then
    perform runlane.settle_signals(flush, accepted, ended, at);
  end if;
  perform runlane.settle_lanes(lanes, joined, true, at);
  perform runlane.tell_queued(flush, joined);
  if flush ? 'audits' then
    insert into runlane.audit_events (at, actor, role, action, target, run_id, reason, outcome, code, request_id,
      audit_key, before, after)
    select at, x.actor, x.role, x.action, x.target, x.run_id, x.reason, x.outcome, x.code, x.request_id,
      x.audit_key, x.before, case when x.after ->> 'status' = 'waiting_on_lane' and exists (select from runlane.agent_runs r
        where r.run_id = x.run_id and r.status = 'queued') then x.after || '{"status": "queued"}' else x.after end
    from jsonb_to_recordset(flush -> 'audits') as x (actor text, role text, action text, target text, run_id text, reason text,
      outcome text, code text, request_id text, audit_key text, before jsonb, after jsonb, of_record boolean, of_command boolean)
    where (whole or x.of_record is null or x.run_id = any (accepted))
      and (x.of_command is null or exists (select from runlane.run_commands c where c.command_id = x.audit_key))
    on conflict (audit_key) do nothing;
  end if;
  if flush ? 'adopt' then
    adopted := runlane.adopt((flush -> 'adopt' ->> 'epoch')::bigint, (flush -> 'adopt' ->> 'all_others')::boolean,
      (flush -> 'adopt' ->> 'limit')::int, at);
  end if;
  if flush ? 'claim' then
    claimed := runlane.claim((flush -> 'claim' ->> 'epoch')::bigint, (flush -> 'claim' ->> 'limit')::int, at);
  end if;

  return json_build_object(
    'at', at,
    'accepted', case when whole then null else to_json(accepted) end,
    'groups', groups,
    'claimed', case when claimed = '{}' then '[]' else runlane.hosted_runs(claimed) end,
    'adopted', case when adopted = '{}' then '[]' else runlane.hosted_runs(adopted) end,
    'mail', to_json(mail),
    'last_event_id', (select last_value from runlane.agent_events_id));
end $$;
