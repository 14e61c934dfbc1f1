-- What the snapshot asks for each second, over however many runs wait: who is parked, and who has been silent for longest.

create index agent_runs_parked on runlane.agent_runs (run_id) where status = 'waiting_on_human';

-- Runs that nobody hosts, by what happened to them last. Active runs are few, and a column that changes with each of their
-- records must not be here: status_since changes with the status, whose updates are not HOT as it is.
create index agent_runs_idle on runlane.agent_runs (status_since, run_id) where owner_epoch is null and ended_at is null;
