-- What: supervision. Who reconciles, what is spared because too much would be ended at once, when queues were paused, and
-- the repair of lanes.
-- Locks: a nullable column on a small table, new tables and functions, a trigger on a small table. Safe online: yes.

-- Why this node ends nobody at present although it would; null: it does not hold back.
alter table runlane.nodes add column systemic text;

-- One node reconciles at a time: a row and not an advisory lock, since a pass takes many transactions and the connections
-- of the embedded database share one session.
create table runlane.reconciling (
  single boolean primary key default true check (single),
  epoch bigint,
  until timestamptz
);
insert into runlane.reconciling default values;

-- When queues were paused, so that this is no waiting time of their runs. Written by whoever resumes a queue.
create table runlane.queue_pauses (
  queue text not null,
  paused_at timestamptz not null,
  resumed_at timestamptz not null
);
create index queue_pauses_of_queue on runlane.queue_pauses (queue, resumed_at);

create function runlane.note_queue_pause() returns trigger language plpgsql as $$
begin
  insert into runlane.queue_pauses (queue, paused_at, resumed_at)
  values (old.name, coalesce(old.paused_at, runlane.now()), runlane.now());
  return null;
end $$;
create trigger note_queue_pause after update of paused on runlane.queues
for each row when (old.paused and not new.paused) execute function runlane.note_queue_pause();

-- Brings rows and lanes back together: an ended, parked or waiting run that still has its lane's turn loses it, a due run
-- that lost the turn of a free lane gets it back, the head of a lane that nobody holds is promoted. Answers what drifted.
-- `dry` only looks, and holds up nobody. A repair first takes the lock of the commit function, as it writes events as well,
-- and looks again under it.
create function runlane.repair_lanes(wanted int, dry boolean) returns json language plpgsql volatile as $$
declare
  at timestamptz;
  leaked text[];
  dropped text[];
  idle text[];
  lanes text[];
begin
  if not dry then
    perform pg_advisory_xact_lock(7420);
  end if;
  at := runlane.now();
  select coalesce(array_agg(r.run_id), '{}') into leaked from (
    select a.run_id from runlane.agent_runs a
    where a.holds_lane and (a.ended_at is not null or a.status = 'waiting_on_lane'
      or a.status = 'waiting_on_human' and not (a.chart -> 'context' -> 'hold_lane_on_human')::boolean)
    order by a.run_id limit wanted) as r;
  select coalesce(array_agg(r.run_id), '{}') into dropped from (
    select distinct on (a.lane_key) a.run_id from runlane.agent_runs a
    where a.status = 'queued' and not a.holds_lane and a.run_at is null
      and not exists (select from runlane.agent_runs h where h.lane_key = a.lane_key and h.holds_lane
        and h.run_id <> all (leaked))
    order by a.lane_key, a.lane_position limit wanted) as r;
  select coalesce(array_agg(l.lane_key), '{}') into idle from (
    select distinct w.lane_key from runlane.agent_runs w
    where w.status = 'waiting_on_lane' and w.run_id <> all (leaked)
      and not exists (select from runlane.agent_runs h where h.lane_key = w.lane_key and h.holds_lane)
      and not exists (select from runlane.agent_runs d where d.lane_key = w.lane_key and d.run_id = any (dropped))
    limit wanted) as l;
  if not dry and cardinality(leaked) + cardinality(dropped) + cardinality(idle) > 0 then
    update runlane.agent_runs set holds_lane = false, version = version + 1 where run_id = any (leaked);
    update runlane.agent_runs set holds_lane = true, version = version + 1 where run_id = any (dropped);
    select coalesce(array_agg(distinct r.lane_key), '{}') || idle into lanes
    from runlane.agent_runs r where r.run_id = any (leaked);
    perform runlane.settle_lanes(lanes, '{}', false, at);
  end if;
  return json_build_object('leaked', leaked, 'dropped', dropped, 'idle', idle,
    'last_event_id', (select last_value from runlane.agent_events_id));
end $$;

-- What streams read, or did last: of a run (`run:<id>`) or of a conversation (`conversation:<id>`), on which node. Written
-- every few seconds for all readers of a node at once; rows of readers that left are deleted soon.
create table runlane.readers (
  key text not null,
  epoch bigint not null,
  read_at timestamptz not null,
  primary key (key, epoch)
) with (fillfactor = 50);
