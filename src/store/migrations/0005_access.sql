-- What: sessions of browsers; names of API tokens that are told apart; commands under an Idempotency-Key.
-- Locks: one new table, one index on a small table, one empty partial index on commands. Safe online: yes.

create table runlane.sessions (
  hash text primary key,
  -- The API token that it stands for and ends with; null when a JWT was verified for it.
  token_hash text,
  name text not null,
  role text not null,
  created_at timestamptz not null,
  expires_at timestamptz not null
);

-- Audit rows and created_by name a token: two that are in use must not share a name. Each data directory has an `admin`.
create unique index api_tokens_name on runlane.api_tokens (name) where revoked_at is null and name <> 'admin';

-- A command given twice under one key is one command, whichever nodes the two requests came to.
create unique index run_commands_of_key on runlane.run_commands (requested_by, (payload ->> 'idempotency_key'))
  where payload ? 'idempotency_key';
