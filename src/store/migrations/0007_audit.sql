-- What: audit rows say what their action changed, and are a chain: each row's hash covers the row and the hash before it.
-- Locks: audit_events is locked while its rows are chained, some ten microseconds for each; the commit function is
-- replaced. Safe online: yes; what nodes of the former version write meanwhile waits, and is chained as well.

lock table runlane.audit_events in share row exclusive mode;

-- Of the target, what the action changed; null where nothing is.
alter table runlane.audit_events add column before jsonb;
alter table runlane.audit_events add column after jsonb;
alter table runlane.audit_events add column hash text;

-- The two ends of the chain. Whoever appends to it holds this row.
create table runlane.audit_chain (
  single boolean primary key default true check (single),
  -- The row that was purged last: the oldest one that is left follows it.
  purged_id bigint not null,
  purged_hash text not null,
  newest_id bigint not null,
  newest_hash text not null
);

-- The hash of an audit row: SHA-256, in hex, of the hash before it and the row as the text of a jsonb object, in UTF-8.
create function runlane.audit_hash(previous text, audit runlane.audit_events) returns text language sql stable as $$
  select encode(sha256(convert_to(previous || jsonb_build_object('id', audit.id,
    'at', to_char(audit.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'actor', audit.actor, 'role', audit.role, 'action', audit.action, 'target', audit.target, 'run_id', audit.run_id,
    'reason', audit.reason, 'outcome', audit.outcome, 'code', audit.code, 'request_id', audit.request_id,
    'before', audit.before, 'after', audit.after)::text, 'UTF8')), 'hex')
$$;

-- Rows of before keep their ids.
do $$
declare
  audit runlane.audit_events;
  newest_id bigint := 0;
  newest_hash text := '';
begin
  for audit in select * from runlane.audit_events order by id loop
    newest_id := audit.id;
    newest_hash := runlane.audit_hash(newest_hash, audit);
    update runlane.audit_events set hash = newest_hash where id = audit.id;
  end loop;
  insert into runlane.audit_chain (purged_id, purged_hash, newest_id, newest_hash)
  values (0, '', newest_id, newest_hash);
end $$;

-- Until its transaction commits a row has an id below zero, which nobody sees.
alter table runlane.audit_events alter column id drop identity;
create sequence runlane.audit_events_unchained increment -1;
alter table runlane.audit_events alter column id set default nextval('runlane.audit_events_unchained');

-- Appends a row to the chain, whoever has written it. As the transaction commits, so that no client that is slow, or
-- frozen, between a row and its commit keeps the others waiting: id order, chain order and commit order are one.
create function runlane.chain_audit() returns trigger language plpgsql as $$
declare
  chain runlane.audit_chain;
  written bigint := new.id;
begin
  update runlane.audit_chain set newest_id = newest_id + 1 returning * into chain;
  new.id := chain.newest_id;
  if octet_length(new.before::text) > 4096 then new.before := '{"too_large": true}'; end if;
  if octet_length(new.after::text) > 4096 then new.after := '{"too_large": true}'; end if;
  new.hash := runlane.audit_hash(chain.newest_hash, new);
  update runlane.audit_events set id = new.id, before = new.before, after = new.after, hash = new.hash
  where id = written;
  update runlane.audit_chain set newest_hash = new.hash;
  return null;
end $$;
create constraint trigger audit_events_chained after insert on runlane.audit_events
  deferrable initially deferred for each row execute function runlane.chain_audit();

-- The rows where the chain is broken: no row, no tampering. A row that is named was changed, or is not one of ours, or what
-- stood before it was removed; `newest_id` of audit_chain is named where the end is missing.
create function runlane.audit_verify() returns table (id bigint, problem text) language plpgsql stable as $$
declare
  chain runlane.audit_chain;
  audit runlane.audit_events;
  previous text;
begin
  select * into chain from runlane.audit_chain;
  previous := chain.purged_hash;
  for audit in select * from runlane.audit_events a order by a.id loop
    if audit.hash is null or audit.hash <> runlane.audit_hash(previous, audit) then
      id := audit.id;
      problem := 'the row was changed or inserted, or rows before it were removed';
      return next;
    end if;
    previous := coalesce(audit.hash, '');
  end loop;
  if previous is distinct from chain.newest_hash then
    id := chain.newest_id;
    problem := 'the newest row is not the end of the chain: rows after the last one were removed, or others were added';
    return next;
  end if;
end $$;

-- Deletes the rows from before a time, and says so in a row of its own. What is left goes on from the last hash deleted.
-- Answers how many rows went.
create function runlane.audit_purge(cutoff timestamptz) returns int language plpgsql volatile as $$
declare
  last runlane.audit_events;
  purged int;
begin
  select * into last from runlane.audit_events a
  where a.id < coalesce((select min(y.id) from runlane.audit_events y where y.at >= cutoff), 9223372036854775807)
  order by a.id desc limit 1;
  if last.id is null then return 0; end if;
  delete from runlane.audit_events a where a.id <= last.id;
  get diagnostics purged = row_count;
  update runlane.audit_chain set purged_id = last.id, purged_hash = last.hash;
  insert into runlane.audit_events (at, actor, role, action, target, outcome, audit_key, after)
  values (runlane.now(), 'database:' || session_user, 'system', 'audit.purge', 'audit rows', 'applied', gen_random_uuid()::text,
    jsonb_build_object('rows', purged, 'up_to_id', last.id));
  return purged;
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
        turn_extended_ms = coalesce(x.turn_extended_ms, r.turn_extended_ms), stuck_reason = x.stuck_reason, stuck_since = case when x.stuck_reason = r.stuck_reason then r.stuck_since
          when x.stuck_reason is not null then at end,
        last_heartbeat_at = at,
        last_progress_at = case when x.progress is false then r.last_progress_at else at end
      from jsonb_to_recordset(flush -> 'records') as x (run_id text, owner_epoch bigint, version bigint, record_id text,
        last_sequence int, status text, detail text, holds_lane boolean, attempt int, chart jsonb, releases boolean,
        joins_from text, frees_lane boolean, ends boolean, cancel_requested boolean, phase text, saying text, tool text,
        error_code text, error_message text, checkpoint_id text, checkpoint_type text, model text, stuck_reason text,
        turn_extended_ms bigint, progress boolean,
        input_tokens bigint, output_tokens bigint)
      where r.run_id = x.run_id and r.version = x.version and r.owner_epoch is not distinct from x.owner_epoch
      returning r.run_id, r.lane_key, x.frees_lane, x.joins_from
    )
    select coalesce(array_agg(c.run_id), '{}'),
      coalesce(array_agg(c.lane_key) filter (where c.frees_lane or c.joins_from is not null), '{}'),
      coalesce(jsonb_object_agg(c.run_id, c.joins_from) filter (where c.joins_from is not null), '{}')
    into accepted, lanes, joined from changed c;
    whole := cardinality(accepted) = jsonb_array_length(flush -> 'records');
  end if;

  if flush ? 'events' then
    insert into runlane.agent_events (run_id, sequence, event_type, visibility, payload, created_at)
    select e.run_id, e.sequence, e.event_type, e.visibility, e.payload, at
    from jsonb_to_recordset(flush -> 'events') as e (run_id text, sequence int, event_type text, visibility smallint,
      payload jsonb)
    where whole or e.run_id = any (accepted);
  end if;
  if flush ? 'forgotten' then
    -- A human said "retry": the call of unknown outcome is as if never started.
    delete from runlane.agent_tool_results t using jsonb_to_recordset(flush -> 'forgotten') as x (run_id text, tool_call_id text)
    where t.run_id = x.run_id and t.tool_call_id = x.tool_call_id and t.outcome = 'started'
      and (whole or x.run_id = any (accepted));
  end if;
  if flush ? 'results' then
    insert into runlane.agent_tool_results as t (run_id, tool_call_id, provider_call_id, position, settled, kind, tool,
      args_hash, input, effects, outcome, result, error_message, attempt, started_at, finished_at, duration_ms)
    select x.run_id, x.tool_call_id, x.provider_call_id, x.position,
      -- An answer given while the run is parked settles after all that is recorded.
      case when x.settled is null and x.outcome <> 'started' then (select coalesce(max(s.settled), 0) + 1
        from runlane.agent_tool_results s where s.run_id = x.run_id) else x.settled end, x.kind, x.tool, x.args_hash, x.input, x.effects, x.outcome, x.result,
      x.error_message, x.attempt, at, case when x.outcome <> 'started' then at end, x.duration_ms
    from jsonb_to_recordset(flush -> 'results') as x (run_id text, tool_call_id text, provider_call_id text, position int, settled int, kind text,
      tool text, args_hash text, input jsonb, effects text, outcome text, result jsonb, error_message text, attempt int,
      duration_ms int)
    where whole or x.run_id = any (accepted)
    on conflict (run_id, tool_call_id) do update set outcome = excluded.outcome, settled = excluded.settled,
      result = excluded.result, error_message = excluded.error_message, attempt = excluded.attempt,
      finished_at = excluded.finished_at, duration_ms = excluded.duration_ms
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
    insert into runlane.waitpoints as w (token_id, run_id, kind, tool_call_id, prompt, schema, status, data, created_at,
      completed_at, completed_by)
    select x.token_id, x.run_id, x.kind, x.tool_call_id, x.prompt, x.schema, x.status, x.data, at,
      case when x.status <> 'pending' then at end, x.completed_by
    from jsonb_to_recordset(flush -> 'waitpoints') as x (token_id text, run_id text, kind text, tool_call_id text,
      prompt text, schema jsonb, status text, data jsonb, completed_by text)
    where whole or x.run_id = any (accepted)
    on conflict (token_id) do update set status = excluded.status, data = excluded.data,
      completed_at = excluded.completed_at, completed_by = excluded.completed_by
      where w.status = 'pending';
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
  if flush ? 'audits' then
    insert into runlane.audit_events (at, actor, role, action, target, run_id, reason, outcome, code, request_id,
      audit_key, before, after)
    select at, x.actor, x.role, x.action, x.target, x.run_id, x.reason, x.outcome, x.code, x.request_id,
      x.audit_key, x.before, x.after
    from jsonb_to_recordset(flush -> 'audits') as x (actor text, role text, action text, target text, run_id text,
      reason text, outcome text, code text, request_id text, audit_key text, before jsonb, after jsonb,
      of_record boolean)
    where whole or x.of_record is null or x.run_id = any (accepted)
    on conflict (audit_key) do nothing;
  end if;

  perform runlane.settle_lanes(lanes, joined, true, at);
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
    'last_event_id', (select last_value from runlane.agent_events_id));
end $$;
