-- What: the durable core: nodes, queues, runs, their events, envelope, waitpoints, commands, inbox, audit.
-- Locks: creates only; nothing to wait for. Safe online: yes (first migration).

create schema if not exists runlane;

-- The only clock that SQL asks. A simulation replaces this function; nothing else in SQL reads the time.
create function runlane.now() returns timestamptz language sql volatile as 'select clock_timestamp()';

create sequence runlane.node_epoch;

create table runlane.nodes (
  epoch bigint primary key default nextval('runlane.node_epoch'),
  node_id text not null,
  status text not null default 'serving',
  version text not null,
  started_at timestamptz not null,
  last_seen_at timestamptz not null,
  lease_until timestamptz not null,
  constraint nodes_status_known check (status in ('serving', 'draining', 'stopped', 'dead'))
) with (fillfactor = 50);

-- The charts that wrote the stored snapshots: version and definition hash. A start whose version cannot read the
-- snapshots of unfinished runs is refused; another definition under the same version is warned of.
create table runlane.machines (
  machine text not null,
  version int not null,
  hash text not null,
  recorded_at timestamptz not null,
  primary key (machine, version)
);

create table runlane.queues (
  name text primary key,
  concurrency int,
  paused boolean not null default false,
  paused_by text,
  paused_at timestamptz,
  paused_reason text,
  constraint queues_concurrency_positive check (concurrency > 0)
);
insert into runlane.queues (name) values ('default');

create sequence runlane.lane_position;

-- The hot row: narrow, updated with each record. No index touches a column that a running run changes, so those
-- updates stay HOT. Payloads are in agent_run_payloads.
create table runlane.agent_runs (
  run_id text collate "C" primary key,
  conversation_id text not null,
  parent_run_id text collate "C",
  root_run_id text collate "C" not null,
  agent text not null,
  surface text not null,
  created_by text not null,
  owner text,
  status text not null,
  detail text,
  lane_key text not null,
  -- Order inside the lane; negative for a run that went to the front of it.
  lane_position bigint,
  -- True from the lane's turn (queued) to the end of active. The unique index below makes the lane rule unbreakable.
  holds_lane boolean not null default false,
  queue text not null,
  priority int not null default 0,
  run_at timestamptz,
  attempt int not null default 0,
  -- Fencing: only a record that names both may change an owned row; owner_epoch null means compare-and-set on version.
  owner_epoch bigint,
  version bigint not null default 1,
  -- Id of the last record applied: tells a retried record apart from a fenced one.
  record_id text,
  last_sequence int not null default 0,
  -- The chart's snapshot after its own last decision, and the events that SQL has decided since.
  chart jsonb not null,
  line_events text[] not null default '{}',
  -- When the run last entered the line; the clock of the queue time-out.
  line_since timestamptz,
  cancel_requested_at timestamptz,
  phase text,
  saying text,
  tool text,
  error_code text,
  error_message text,
  checkpoint_id text,
  checkpoint_type text,
  input_tokens bigint not null default 0,
  output_tokens bigint not null default 0,
  idempotency_key text,
  created_at timestamptz not null,
  started_at timestamptz,
  ended_at timestamptz,
  status_since timestamptz not null,
  last_heartbeat_at timestamptz,
  last_progress_at timestamptz,
  constraint agent_runs_status_known check (status in ('queued', 'waiting_on_lane', 'running', 'waiting_on_tool',
    'waiting_on_child', 'waiting_on_human', 'resuming', 'cancel_requested', 'cancelled', 'completed', 'failed', 'timed_out')),
  constraint agent_runs_owned_when_active check ((owner_epoch is not null) =
    (status in ('running', 'waiting_on_tool', 'waiting_on_child', 'resuming', 'cancel_requested'))),
  constraint agent_runs_active_holds_lane check (owner_epoch is null or holds_lane),
  constraint agent_runs_ended_when_terminal check ((ended_at is not null) =
    (status in ('cancelled', 'completed', 'failed', 'timed_out')))
) with (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);

create unique index agent_runs_one_holder_per_lane on runlane.agent_runs (lane_key) where holds_lane;
create index agent_runs_lane_line on runlane.agent_runs (lane_key, lane_position) where status = 'waiting_on_lane';
create index agent_runs_lane_line_of_agent on runlane.agent_runs (lane_key, agent, lane_position)
  where status = 'waiting_on_lane';
-- Lists: of a lane, and of what is not over.
create index agent_runs_lane on runlane.agent_runs (lane_key, run_id);
create index agent_runs_open on runlane.agent_runs (run_id) where ended_at is null;
create index agent_runs_claimable on runlane.agent_runs (queue, priority desc, lane_position)
  where status = 'queued' and holds_lane;
create index agent_runs_not_due on runlane.agent_runs (run_at) where status = 'queued' and not holds_lane;
create index agent_runs_owned on runlane.agent_runs (owner_epoch, queue) where owner_epoch is not null;
create index agent_runs_conversation on runlane.agent_runs (conversation_id, run_id);
create index agent_runs_parent on runlane.agent_runs (parent_run_id) where parent_run_id is not null;
create unique index agent_runs_idempotency on runlane.agent_runs (created_by, idempotency_key)
  where idempotency_key is not null;

-- Keys of requests that made no run but replaced the input of a waiting one; a run keeps the key that made it itself.
create table runlane.replacement_keys (
  created_by text not null,
  idempotency_key text not null,
  run_id text collate "C" not null,
  request_hash text not null,
  primary key (created_by, idempotency_key)
);

create table runlane.agent_run_payloads (
  run_id text collate "C" primary key,
  input jsonb,
  output jsonb,
  metadata jsonb not null default '{}',
  -- timeouts, execution_timeout_override, callback_url, traceparent, request hash: read when a run starts.
  options jsonb not null default '{}'
);

create sequence runlane.agent_events_id;

-- Commit order equals id order: every writer holds the lock of runlane.commit while it takes ids.
create table runlane.agent_events (
  id bigint primary key default nextval('runlane.agent_events_id'),
  run_id text collate "C" not null,
  sequence int not null,
  event_type text not null,
  -- 0 user, 1 operator, 2 internal: a reader of level n sees <= n.
  visibility smallint not null,
  payload jsonb not null,
  created_at timestamptz not null
);
create unique index agent_events_of_run on runlane.agent_events (run_id, sequence);

-- A checkpoint is the event that announces it: one truth, no second row per step.
create view runlane.agent_checkpoints as
  select payload ->> 'checkpoint_id' as checkpoint_id, run_id, payload ->> 'type' as type, sequence, created_at
  from runlane.agent_events where event_type = 'checkpoint_created';

-- The idempotency envelope: every recorded call of a run, tools and plain steps alike.
create table runlane.agent_tool_results (
  run_id text collate "C" not null,
  tool_call_id text collate "C" not null,
  -- Order in which the agent asked for the call, and order in which calls settled: replay keeps both.
  position int not null,
  settled int,
  kind text not null,
  tool text not null,
  args_hash text,
  effects text,
  outcome text not null,
  result jsonb,
  error_message text,
  attempt int not null,
  started_at timestamptz,
  finished_at timestamptz,
  duration_ms int,
  primary key (run_id, tool_call_id),
  constraint agent_tool_results_outcome_known check (outcome in ('started', 'succeeded', 'failed'))
) with (fillfactor = 80);

create table runlane.agent_run_journals (
  -- The conversation for a root run, the run itself for a child run.
  journal_key text primary key,
  content jsonb not null,
  run_id text not null,
  updated_at timestamptz not null
);

create table runlane.waitpoints (
  token_id text collate "C" primary key,
  run_id text collate "C" not null,
  kind text not null,
  tool_call_id text,
  prompt text not null,
  schema jsonb,
  status text not null default 'pending',
  data jsonb,
  created_at timestamptz not null,
  expires_at timestamptz,
  completed_at timestamptz,
  completed_by text,
  constraint waitpoints_status_known check (status in ('pending', 'completed', 'expired', 'cancelled'))
);
create index waitpoints_of_run on runlane.waitpoints (run_id);

create table runlane.run_commands (
  command_id text collate "C" primary key,
  run_id text collate "C" not null,
  kind text not null,
  payload jsonb not null,
  status text not null default 'pending',
  outcome text,
  requested_by text not null,
  reason text,
  created_at timestamptz not null,
  applied_at timestamptz,
  constraint run_commands_status_known check (status in ('pending', 'applied', 'refused'))
);
create index run_commands_of_run on runlane.run_commands (run_id);

-- The only write from one run, caller or node to another run. A row lives until the receiver's own commit consumes it.
create table runlane.run_inbox (
  id bigint generated always as identity primary key,
  run_id text collate "C" not null,
  kind text not null,
  dedupe_key text not null,
  payload jsonb not null,
  created_at timestamptz not null,
  constraint run_inbox_once unique (run_id, dedupe_key)
);

create table runlane.audit_events (
  id bigint generated always as identity primary key,
  at timestamptz not null,
  actor text not null,
  role text not null,
  action text not null,
  target text not null,
  run_id text collate "C",
  reason text,
  outcome text not null,
  code text,
  request_id text,
  audit_key text not null unique,
  constraint audit_events_outcome_known check (outcome in ('applied', 'refused'))
);

create table runlane.api_tokens (
  id text primary key,
  name text not null,
  role text not null,
  hash text not null unique,
  created_at timestamptz not null,
  revoked_at timestamptz
);
