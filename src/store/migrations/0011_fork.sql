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
