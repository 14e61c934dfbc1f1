-- What: forks. Each recorded call knows between which events of its run it began and was settled, so that the calls of
-- any checkpoint are known exactly; a run that is forked from a checkpoint takes them over in the commit that makes it.
-- Locks: two nullable columns, functions. Safe online: yes. Calls that were recorded before have no such numbers: their
-- runs can be forked from their `input` checkpoint only.

-- The sequence of the run's last event before the call began, and before its outcome was recorded. A call belongs to the
-- checkpoint with the sequence c if and only if settled_after < c. (`settled` is the order in which the agent's code saw
-- the results: a failure that the code goes on from is recorded later than it was seen.)
alter table runlane.agent_tool_results add column begun_after int;
alter table runlane.agent_tool_results add column settled_after int;

-- Makes a run that was just inserted a fork: the calls of the checkpoint, the checkpoint that they amount to, an attempt
-- that begins with a replay, the origin in its first event, the audit row. The calls settle behind the `input` checkpoint
-- (sequence 3) and before the one that is added here. Refuses a run that retention has deleted, or is about to.
create function runlane.fork_run(member jsonb, at timestamptz) returns void language plpgsql as $$
declare
  origin jsonb := member -> 'fork';
  made text := member ->> 'run_id';
  copied int;
begin
  perform from runlane.agent_runs r where r.run_id = origin ->> 'run_id' for key share skip locked;
  if not found then
    raise exception using errcode = 'RL001', message = jsonb_build_object('refused', 'not_found',
      'run_id', origin ->> 'run_id')::text;
  end if;

  insert into runlane.agent_tool_results (run_id, tool_call_id, provider_call_id, position, settled, kind, tool,
    args_hash, input, effects, outcome, result, error_message, attempt, started_at, finished_at, duration_ms,
    begun_after, settled_after)
  select made, t.tool_call_id, t.provider_call_id, t.position, t.settled, t.kind, t.tool,
    t.args_hash, t.input, t.effects, t.outcome, t.result, t.error_message, 0, t.started_at, t.finished_at, t.duration_ms,
    3, 3
  from runlane.agent_tool_results t
  where t.run_id = origin ->> 'run_id' and t.settled_after < (origin ->> 'sequence')::int;
  get diagnostics copied = row_count;

  if copied > 0 then
    insert into runlane.agent_events (run_id, sequence, event_type, visibility, payload, created_at)
    values (made, 4, 'checkpoint_created', 2,
      jsonb_build_object('checkpoint_id', made || '.4', 'type', origin ->> 'type'), at);
    update runlane.agent_runs r set last_sequence = 4, checkpoint_id = made || '.4', checkpoint_type = origin ->> 'type'
    where r.run_id = made;
  end if;
  -- As if handed over before any of its code ran: whoever claims it resumes it, as its first attempt.
  update runlane.agent_runs r set attempt = 1 where r.run_id = made;
  update runlane.agent_events e
  set payload = e.payload || jsonb_build_object('forked_from', member -> 'options' -> 'forked_from')
  where e.run_id = made and e.sequence = 1;
  insert into runlane.audit_events (at, actor, role, action, target, run_id, reason, outcome, code, request_id,
    audit_key, before, after)
  select at, x.actor, x.role, x.action, x.target, x.run_id, x.reason, x.outcome, x.code, x.request_id,
    x.audit_key, x.before, x.after
  from jsonb_to_record(origin -> 'audit') as x (actor text, role text, action text, target text, run_id text,
    reason text, outcome text, code text, request_id text, audit_key text, before jsonb, after jsonb)
  on conflict (audit_key) do nothing;
end $$;

-- One request that is all or nothing (one run, or a batch), with everything that needs a locked look: keys seen
-- before, lane policies. Answers {"runs": [{run_id, existing}]} or {"refused": code, ...}.
create or replace function runlane.create_group(members jsonb, at timestamptz) returns jsonb language plpgsql
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
      select r.run_id, r.created_by into known from runlane.agent_runs r
      where r.lane_key = member ->> 'lane_key' and r.agent = member ->> 'agent' and r.status = 'waiting_on_lane'
      order by r.lane_position desc limit 1;
      if known.run_id is not null then
        raise exception using errcode = 'RL001', message = jsonb_build_object('refused',
          case when member ? 'only_own' and known.created_by <> member ->> 'created_by' then 'forbidden' else 'coalesce' end,
          'run_id', known.run_id)::text;
      end if;
    elsif member ->> 'lane_policy' = 'interrupt' then
      select r.run_id, r.created_by into known from runlane.agent_runs r
      where r.lane_key = member ->> 'lane_key' and r.holds_lane limit 1;
      if known.created_by <> member ->> 'created_by' and member ? 'only_own' then
        raise exception using errcode = 'RL001', message = jsonb_build_object('refused', 'forbidden',
          'run_id', known.run_id)::text;
      end if;
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
    if member ? 'fork' then
      perform runlane.fork_run(member, at);
    end if;
    made := made || jsonb_build_object('run_id', member ->> 'run_id', 'existing', false);
  end loop;
  return jsonb_build_object('runs', made);
exception when sqlstate 'RL001' then
  return sqlerrm::jsonb;
end $$;
