-- What the migrations lead to. Generated: npm run generate.

create table runlane.agent_events (
  id bigint not null default nextval('runlane.agent_events_id'::regclass),
  run_id text not null,
  sequence integer not null,
  event_type text not null,
  visibility smallint not null,
  payload jsonb not null,
  created_at timestamp with time zone not null
);

create table runlane.agent_run_journals (
  journal_key text not null,
  content jsonb not null,
  run_id text not null,
  updated_at timestamp with time zone not null
);

create table runlane.agent_run_payloads (
  run_id text not null,
  input jsonb,
  output jsonb,
  metadata jsonb not null default '{}'::jsonb,
  options jsonb not null default '{}'::jsonb
);

create table runlane.agent_runs (
  run_id text not null,
  conversation_id text not null,
  parent_run_id text,
  root_run_id text not null,
  agent text not null,
  surface text not null,
  created_by text not null,
  owner text,
  status text not null,
  detail text,
  lane_key text not null,
  lane_position bigint,
  holds_lane boolean not null default false,
  queue text not null,
  priority integer not null default 0,
  run_at timestamp with time zone,
  attempt integer not null default 0,
  owner_epoch bigint,
  version bigint not null default 1,
  record_id text,
  last_sequence integer not null default 0,
  chart jsonb not null,
  line_events text[] not null default '{}'::text[],
  line_since timestamp with time zone,
  cancel_requested_at timestamp with time zone,
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
  created_at timestamp with time zone not null,
  started_at timestamp with time zone,
  ended_at timestamp with time zone,
  status_since timestamp with time zone not null,
  last_heartbeat_at timestamp with time zone,
  last_progress_at timestamp with time zone,
  model text,
  stuck_reason text,
  stuck_since timestamp with time zone,
  turn_extended_ms bigint not null default 0,
  children integer not null default 0,
  detached boolean not null default false,
  clock jsonb,
  clock_at timestamp with time zone
) with (fillfactor=70, autovacuum_vacuum_scale_factor=0.02, autovacuum_vacuum_threshold=1000);

create table runlane.agent_tool_results (
  run_id text not null,
  tool_call_id text not null,
  position integer not null,
  settled integer,
  kind text not null,
  tool text not null,
  args_hash text,
  effects text,
  outcome text not null,
  result jsonb,
  error_message text,
  attempt integer not null,
  started_at timestamp with time zone,
  finished_at timestamp with time zone,
  duration_ms integer,
  provider_call_id text,
  input jsonb,
  begun_after integer,
  settled_after integer
) with (fillfactor=80);

create table runlane.agents (
  name text not null,
  definition jsonb not null,
  declared_by text not null,
  created_at timestamp with time zone not null,
  updated_at timestamp with time zone not null
);

create table runlane.api_tokens (
  id text not null,
  name text not null,
  role text not null,
  hash text not null,
  created_at timestamp with time zone not null,
  revoked_at timestamp with time zone
);

create table runlane.audit_chain (
  single boolean not null default true,
  purged_id bigint not null,
  purged_hash text not null,
  newest_id bigint not null,
  newest_hash text not null
);

create table runlane.audit_events (
  id bigint not null default nextval('runlane.audit_events_unchained'::regclass),
  at timestamp with time zone not null,
  actor text not null,
  role text not null,
  action text not null,
  target text not null,
  run_id text,
  reason text,
  outcome text not null,
  code text,
  request_id text,
  audit_key text not null,
  before jsonb,
  after jsonb,
  hash text
);

create table runlane.machines (
  machine text not null,
  version integer not null,
  hash text not null,
  recorded_at timestamp with time zone not null
);

create table runlane.nodes (
  epoch bigint not null default nextval('runlane.node_epoch'::regclass),
  node_id text not null,
  status text not null default 'serving'::text,
  version text not null,
  started_at timestamp with time zone not null,
  last_seen_at timestamp with time zone not null,
  lease_until timestamp with time zone not null,
  systemic text
) with (fillfactor=50);

create table runlane.purged (
  single boolean not null default true,
  event_id bigint not null
);

create table runlane.queue_pauses (
  queue text not null,
  paused_at timestamp with time zone not null,
  resumed_at timestamp with time zone not null
);

create table runlane.queues (
  name text not null,
  concurrency integer,
  paused boolean not null default false,
  paused_by text,
  paused_at timestamp with time zone,
  paused_reason text
);

create table runlane.readers (
  key text not null,
  epoch bigint not null,
  read_at timestamp with time zone not null
) with (fillfactor=50);

create table runlane.reconciling (
  single boolean not null default true,
  epoch bigint,
  until timestamp with time zone
);

create table runlane.replacement_keys (
  created_by text not null,
  idempotency_key text not null,
  run_id text not null,
  request_hash text not null
);

create table runlane.request_keys (
  requested_by text not null,
  key text not null,
  request_hash text not null,
  target text not null,
  created_at timestamp with time zone not null
);

create table runlane.run_commands (
  command_id text not null,
  run_id text not null,
  kind text not null,
  payload jsonb not null,
  status text not null default 'pending'::text,
  outcome text,
  requested_by text not null,
  reason text,
  created_at timestamp with time zone not null,
  applied_at timestamp with time zone
);

create table runlane.run_inbox (
  id bigint not null,
  run_id text not null,
  kind text not null,
  dedupe_key text not null,
  payload jsonb not null,
  created_at timestamp with time zone not null,
  name text,
  due boolean not null default true
);

create table runlane.sessions (
  hash text not null,
  token_hash text,
  name text not null,
  role text not null,
  created_at timestamp with time zone not null,
  expires_at timestamp with time zone not null
);

create table runlane.waitpoints (
  token_id text not null,
  run_id text not null,
  kind text not null,
  tool_call_id text,
  prompt text not null,
  schema jsonb,
  status text not null default 'pending'::text,
  data jsonb,
  created_at timestamp with time zone not null,
  expires_at timestamp with time zone,
  completed_at timestamp with time zone,
  completed_by text,
  name text
);

create table runlane.webhook_deliveries (
  delivery_id bigint not null,
  event_id bigint not null,
  run_id text not null,
  type text not null,
  url text not null,
  host text not null,
  notice jsonb,
  attempts integer not null default 0,
  next_attempt_at timestamp with time zone not null,
  last_status integer,
  last_error text,
  created_at timestamp with time zone not null,
  finished_at timestamp with time zone,
  outcome text
);

alter table runlane.agent_events add constraint agent_events_pkey PRIMARY KEY (id);

alter table runlane.agent_run_journals add constraint agent_run_journals_pkey PRIMARY KEY (journal_key);

alter table runlane.agent_run_payloads add constraint agent_run_payloads_pkey PRIMARY KEY (run_id);

alter table runlane.agent_runs add constraint agent_runs_active_holds_lane CHECK (((owner_epoch IS NULL) OR holds_lane));

alter table runlane.agent_runs add constraint agent_runs_ended_when_terminal CHECK (((ended_at IS NOT NULL) = (status = ANY (ARRAY['cancelled'::text, 'completed'::text, 'failed'::text, 'timed_out'::text]))));

alter table runlane.agent_runs add constraint agent_runs_owned_when_active CHECK (((owner_epoch IS NOT NULL) = (status = ANY (ARRAY['running'::text, 'waiting_on_tool'::text, 'waiting_on_child'::text, 'resuming'::text, 'cancel_requested'::text]))));

alter table runlane.agent_runs add constraint agent_runs_pkey PRIMARY KEY (run_id);

alter table runlane.agent_runs add constraint agent_runs_status_known CHECK ((status = ANY (ARRAY['queued'::text, 'waiting_on_lane'::text, 'running'::text, 'waiting_on_tool'::text, 'waiting_on_child'::text, 'waiting_on_human'::text, 'resuming'::text, 'cancel_requested'::text, 'cancelled'::text, 'completed'::text, 'failed'::text, 'timed_out'::text])));

alter table runlane.agent_tool_results add constraint agent_tool_results_outcome_known CHECK ((outcome = ANY (ARRAY['started'::text, 'succeeded'::text, 'failed'::text])));

alter table runlane.agent_tool_results add constraint agent_tool_results_pkey PRIMARY KEY (run_id, tool_call_id);

alter table runlane.agents add constraint agents_pkey PRIMARY KEY (name);

alter table runlane.api_tokens add constraint api_tokens_hash_key UNIQUE (hash);

alter table runlane.api_tokens add constraint api_tokens_pkey PRIMARY KEY (id);

alter table runlane.audit_chain add constraint audit_chain_pkey PRIMARY KEY (single);

alter table runlane.audit_chain add constraint audit_chain_single_check CHECK (single);

alter table runlane.audit_events add constraint audit_events_audit_key_key UNIQUE (audit_key);

alter table runlane.audit_events add constraint audit_events_chained TRIGGER DEFERRABLE INITIALLY DEFERRED;

alter table runlane.audit_events add constraint audit_events_outcome_known CHECK ((outcome = ANY (ARRAY['applied'::text, 'refused'::text])));

alter table runlane.audit_events add constraint audit_events_pkey PRIMARY KEY (id);

alter table runlane.machines add constraint machines_pkey PRIMARY KEY (machine, version);

alter table runlane.nodes add constraint nodes_pkey PRIMARY KEY (epoch);

alter table runlane.nodes add constraint nodes_status_known CHECK ((status = ANY (ARRAY['serving'::text, 'draining'::text, 'stopped'::text, 'dead'::text])));

alter table runlane.purged add constraint purged_pkey PRIMARY KEY (single);

alter table runlane.purged add constraint purged_single_check CHECK (single);

alter table runlane.queues add constraint queues_concurrency_positive CHECK ((concurrency > 0));

alter table runlane.queues add constraint queues_pkey PRIMARY KEY (name);

alter table runlane.readers add constraint readers_pkey PRIMARY KEY (key, epoch);

alter table runlane.reconciling add constraint reconciling_pkey PRIMARY KEY (single);

alter table runlane.reconciling add constraint reconciling_single_check CHECK (single);

alter table runlane.replacement_keys add constraint replacement_keys_pkey PRIMARY KEY (created_by, idempotency_key);

alter table runlane.request_keys add constraint request_keys_pkey PRIMARY KEY (requested_by, key);

alter table runlane.run_commands add constraint run_commands_pkey PRIMARY KEY (command_id);

alter table runlane.run_commands add constraint run_commands_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'applied'::text, 'refused'::text])));

alter table runlane.run_inbox add constraint run_inbox_once UNIQUE (run_id, dedupe_key);

alter table runlane.run_inbox add constraint run_inbox_pkey PRIMARY KEY (id);

alter table runlane.sessions add constraint sessions_pkey PRIMARY KEY (hash);

alter table runlane.waitpoints add constraint waitpoints_pkey PRIMARY KEY (token_id);

alter table runlane.waitpoints add constraint waitpoints_status_known CHECK ((status = ANY (ARRAY['pending'::text, 'completed'::text, 'expired'::text, 'cancelled'::text])));

alter table runlane.webhook_deliveries add constraint webhook_deliveries_finished CHECK ((((outcome IS NOT NULL) = (finished_at IS NOT NULL)) AND ((notice IS NULL) = (finished_at IS NOT NULL))));

alter table runlane.webhook_deliveries add constraint webhook_deliveries_outcome_known CHECK ((outcome = ANY (ARRAY['delivered'::text, 'gone'::text, 'given_up'::text])));

alter table runlane.webhook_deliveries add constraint webhook_deliveries_pkey PRIMARY KEY (delivery_id);

CREATE UNIQUE INDEX agent_events_of_run ON runlane.agent_events USING btree (run_id, sequence);

CREATE INDEX agent_runs_claimable ON runlane.agent_runs USING btree (queue, priority DESC, lane_position) WHERE ((status = 'queued'::text) AND holds_lane);

CREATE INDEX agent_runs_conversation ON runlane.agent_runs USING btree (conversation_id, run_id);

CREATE UNIQUE INDEX agent_runs_idempotency ON runlane.agent_runs USING btree (created_by, idempotency_key) WHERE (idempotency_key IS NOT NULL);

CREATE INDEX agent_runs_idle ON runlane.agent_runs USING btree (status_since, run_id) WHERE ((owner_epoch IS NULL) AND (ended_at IS NULL));

CREATE INDEX agent_runs_lane ON runlane.agent_runs USING btree (lane_key, run_id);

CREATE INDEX agent_runs_lane_line ON runlane.agent_runs USING btree (lane_key, lane_position) WHERE (status = 'waiting_on_lane'::text);

CREATE INDEX agent_runs_lane_line_of_agent ON runlane.agent_runs USING btree (lane_key, agent, lane_position) WHERE (status = 'waiting_on_lane'::text);

CREATE INDEX agent_runs_not_due ON runlane.agent_runs USING btree (run_at) WHERE ((status = 'queued'::text) AND (NOT holds_lane));

CREATE UNIQUE INDEX agent_runs_one_holder_per_lane ON runlane.agent_runs USING btree (lane_key) WHERE holds_lane;

CREATE INDEX agent_runs_open ON runlane.agent_runs USING btree (run_id) WHERE (ended_at IS NULL);

CREATE INDEX agent_runs_owned ON runlane.agent_runs USING btree (owner_epoch, queue) WHERE (owner_epoch IS NOT NULL);

CREATE INDEX agent_runs_parent ON runlane.agent_runs USING btree (parent_run_id) WHERE (parent_run_id IS NOT NULL);

CREATE INDEX agent_runs_parked ON runlane.agent_runs USING btree (run_id) WHERE (status = 'waiting_on_human'::text);

CREATE INDEX agent_runs_stuck ON runlane.agent_runs USING btree (run_id) WHERE (stuck_reason IS NOT NULL);

CREATE UNIQUE INDEX api_tokens_name ON runlane.api_tokens USING btree (name) WHERE ((revoked_at IS NULL) AND (name <> 'admin'::text));

CREATE INDEX queue_pauses_of_queue ON runlane.queue_pauses USING btree (queue, resumed_at);

CREATE INDEX request_keys_age ON runlane.request_keys USING btree (created_at);

CREATE UNIQUE INDEX run_commands_of_key ON runlane.run_commands USING btree (requested_by, ((payload ->> 'idempotency_key'::text))) WHERE (payload ? 'idempotency_key'::text);

CREATE INDEX run_commands_of_run ON runlane.run_commands USING btree (run_id);

CREATE INDEX run_inbox_due ON runlane.run_inbox USING btree (id) WHERE due;

CREATE INDEX run_inbox_signals ON runlane.run_inbox USING btree (run_id, name, id) WHERE (kind = 'signal'::text);

CREATE INDEX waitpoints_of_run ON runlane.waitpoints USING btree (run_id);

CREATE INDEX webhook_deliveries_age ON runlane.webhook_deliveries USING btree (finished_at, created_at);

CREATE INDEX webhook_deliveries_due ON runlane.webhook_deliveries USING btree (host, next_attempt_at) WHERE (finished_at IS NULL);

create view runlane.agent_checkpoints as
 SELECT (payload ->> 'checkpoint_id'::text) AS checkpoint_id,
    run_id,
    (payload ->> 'type'::text) AS type,
    sequence,
    created_at
   FROM runlane.agent_events
  WHERE (event_type = 'checkpoint_created'::text);

-- function runlane.adopt(adopter bigint, all_others boolean, wanted integer, at timestamp with time zone) returns text[]

-- function runlane.audit_hash(previous text, audit runlane.audit_events) returns text

-- function runlane.audit_purge(cutoff timestamp with time zone) returns integer

-- function runlane.audit_verify() returns TABLE(id bigint, problem text)

-- function runlane.chain_audit() returns trigger

-- function runlane.child_report(child text) returns jsonb

-- function runlane.claim(claimer bigint, wanted integer, at timestamp with time zone) returns text[]

-- function runlane.claim_deliveries(hosts jsonb, lease_ms integer) returns SETOF runlane.webhook_deliveries

-- function runlane.commit(flush jsonb) returns json

-- function runlane.commit_and_notify(flush jsonb) returns json

-- function runlane.create_group(members jsonb, at timestamp with time zone) returns jsonb

-- function runlane.fork_run(member jsonb, at timestamp with time zone) returns void

-- function runlane.hosted_runs(ids text[]) returns json

-- function runlane.insert_runs(creates jsonb, at timestamp with time zone) returns void

-- function runlane.note_queue_pause() returns trigger

-- function runlane.now() returns timestamp with time zone

-- function runlane.repair_lanes(wanted integer, dry boolean) returns json

-- function runlane.seize(ids text[], by_epoch bigint, expected bigint) returns text[]

-- function runlane.settle_lanes(lanes text[], joined jsonb, take_due boolean, at timestamp with time zone) returns integer

-- function runlane.settle_signals(flush jsonb, accepted text[], ended text[], at timestamp with time zone) returns void

-- function runlane.tell_family(cascades jsonb, accepted text[], reporting text[], at timestamp with time zone) returns text[]

-- function runlane.tell_queued(flush jsonb, joined jsonb) returns void

-- function runlane.write_deliveries(deliveries jsonb, accepted text[]) returns void

CREATE CONSTRAINT TRIGGER audit_events_chained AFTER INSERT ON runlane.audit_events DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION runlane.chain_audit();

CREATE TRIGGER note_queue_pause AFTER UPDATE OF paused ON runlane.queues FOR EACH ROW WHEN ((old.paused AND (NOT new.paused))) EXECUTE FUNCTION runlane.note_queue_pause();
