-- What: signals. One that comes is kept in the inbox of its run until the run's code asks for one of its name, and is
-- consumed by the commit that records the call. While a run is parked for a signal it is mail that wakes it.
-- A resume says whether its run got the turn of its lane at once.
-- Locks: three columns, the one default is constant; an index on the inbox, which is small; functions. Safe online: yes.

-- Of the signal that a run is parked for.
alter table runlane.waitpoints add column name text;
-- Of a signal.
alter table runlane.run_inbox add column name text;
-- To be brought to its run. A signal that nobody waits for is not.
alter table runlane.run_inbox add column due boolean not null default true;
create index run_inbox_signals on runlane.run_inbox (run_id, name, id) where kind = 'signal';
create index run_inbox_due on runlane.run_inbox (id) where due;

-- What a flush means for signals: keeps those that were sent, tells which have become mail and which are none any more,
-- and drops those of runs that have `ended` and are never resumed. A signal to a run that ends, or that has a thousand of them
-- unread, is not written, and its command neither: that is how its sender knows.
create function runlane.settle_signals(flush jsonb, accepted text[], ended text[], at timestamptz) returns void
language plpgsql as $$
declare
  moved text[];
begin
  if flush ? 'signals' then
    with asked as (
      select x.*, row_number() over (partition by x.run_id order by x.ord) as nth
      from jsonb_to_recordset(flush -> 'signals') as x (ord int, command_id text, run_id text, payload jsonb,
        requested_by text, reason text)
      where not exists (select from runlane.run_commands c where c.command_id = x.command_id)
    ), kept as (
      select i.run_id, count(*) as n from runlane.run_inbox i
      where i.kind = 'signal' and i.run_id in (select a.run_id from asked a) group by i.run_id
    ), written as (
      insert into runlane.run_commands (command_id, run_id, kind, payload, status, outcome, requested_by, reason,
        created_at, applied_at)
      select a.command_id, a.run_id, 'signal', a.payload - 'data', 'applied', 'kept', a.requested_by, a.reason, at, at
      from asked a join runlane.agent_runs r using (run_id) left join kept k using (run_id)
      where r.ended_at is null and r.status <> 'cancel_requested' and a.nth + coalesce(k.n, 0) <= 1000
      on conflict do nothing
      returning command_id
    )
    -- In the order in which they came, which is that of their ids.
    insert into runlane.run_inbox (run_id, kind, name, dedupe_key, payload, created_at, due)
    select a.run_id, 'signal', a.payload ->> 'name', a.command_id,
      jsonb_build_object('data', a.payload -> 'data', 'by', a.requested_by), at,
      exists (select from runlane.waitpoints w where w.run_id = a.run_id and w.kind = 'signal' and w.status = 'pending'
        and w.name = a.payload ->> 'name')
    from asked a join written w using (command_id) order by a.ord;
  end if;

  -- Runs that were parked for a signal just now, or go on.
  select array_agg(distinct w ->> 'run_id') into moved from jsonb_array_elements(flush -> 'waitpoints') as w
  where w ->> 'kind' = 'signal' and w ->> 'run_id' = any (accepted);
  if moved is not null then
    update runlane.run_inbox i set due = not i.due
    where i.kind = 'signal' and i.run_id = any (moved) and i.due <> exists (select from runlane.waitpoints w
      where w.run_id = i.run_id and w.kind = 'signal' and w.status = 'pending' and w.name = i.name);
  end if;

  if cardinality(ended) > 0 then
    delete from runlane.run_inbox i where i.kind = 'signal' and i.run_id = any (ended);
  end if;
end $$;

-- Of the runs that came back into their lane in this flush (`joined`) some got the turn at once. Their commands and events
-- were written before that was settled, and say from now on what became of them.
create function runlane.tell_queued(flush jsonb, joined jsonb) returns void language plpgsql volatile as $$
declare
  queued text[];
begin
  if joined = '{}' then
    return;
  end if;
  select coalesce(array_agg(r.run_id), '{}') into queued from runlane.agent_runs r
  where r.run_id in (select jsonb_object_keys(joined)) and r.status = 'queued';
  update runlane.run_commands c set outcome = 'queued'
  from jsonb_to_recordset(flush -> 'outcomes') as x (run_id text, command_id text)
  where c.command_id = x.command_id and c.outcome = 'waiting_on_lane' and x.run_id = any (queued);
  update runlane.agent_events e set payload = e.payload || '{"outcome": "queued"}'
  from jsonb_to_recordset(flush -> 'events') as x (run_id text, sequence int, event_type text, payload jsonb)
  where e.run_id = x.run_id and e.sequence = x.sequence and x.event_type = 'command_applied'
    and x.payload ->> 'outcome' = 'waiting_on_lane' and x.run_id = any (queued);
end $$;
