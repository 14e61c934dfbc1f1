-- What: the clock that a run is stuck by or that is over first, as its own node counts, and when that was so: written with
-- every record of the run, so that any node can say when it is over.
-- Locks: two nullable columns. Safe online: yes.

alter table runlane.agent_runs add column clock jsonb;
alter table runlane.agent_runs add column clock_at timestamptz;
