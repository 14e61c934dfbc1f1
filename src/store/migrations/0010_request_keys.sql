-- What: requests under an Idempotency-Key that make an agent or a token, so that they make it once.
-- Locks: one new table. Safe online: yes.

create table runlane.request_keys (
  requested_by text not null,
  key text not null,
  request_hash text not null,
  -- What was made: the name of an agent, the id of a token.
  target text not null,
  created_at timestamptz not null,
  primary key (requested_by, key)
);
create index request_keys_age on runlane.request_keys (created_at);
