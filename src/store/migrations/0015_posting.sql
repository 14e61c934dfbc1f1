-- What: making runs, as the fork and the rights of a service want it: its lane policy touches nothing that others created.
-- Locks: a function. Safe online: yes.

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
