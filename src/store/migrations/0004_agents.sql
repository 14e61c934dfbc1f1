-- What: agents that call models. The run's model and token usage, a provider's own id of a tool call, what the watchdog
-- found, and the agents that are declared over HTTP.
-- Locks: new nullable columns (no rewrite), one new table, one empty partial index (a short lock), the commit function replaced. Safe online: yes; nodes of
-- the former version go on, since the function still takes their flushes (new fields are null or absent there).

alter table runlane.agent_runs add column model text;
alter table runlane.agent_runs add column stuck_reason text;
alter table runlane.agent_runs add column stuck_since timestamptz;
alter table runlane.agent_runs add column turn_extended_ms bigint not null default 0;
create index agent_runs_stuck on runlane.agent_runs (run_id) where stuck_reason is not null;
alter table runlane.agent_tool_results add column provider_call_id text;
alter table runlane.agent_tool_results add column input jsonb;

create table runlane.agents (
  name text primary key,
  definition jsonb not null,
  declared_by text not null,
  created_at timestamptz not null,
  updated_at timestamptz not null
);
