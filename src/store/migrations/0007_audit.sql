-- What: audit rows say what their action changed, and are a chain: each row's hash covers the row and the hash before it.
-- Locks: audit_events is locked while its rows are chained, some ten microseconds for each; the commit function is
-- replaced. Safe online: yes; what nodes of the former version write meanwhile waits, and is chained as well.

lock table runlane.audit_events in share row exclusive mode;

-- Of the target, what the action changed; null where nothing is.
alter table runlane.audit_events add column before jsonb;
alter table runlane.audit_events add column after jsonb;
alter table runlane.audit_events add column hash text;

-- The two ends of the chain. Whoever appends to it holds this row.
create table runlane.audit_chain (
  single boolean primary key default true check (single),
  -- The row that was purged last: the oldest one that is left follows it.
  purged_id bigint not null,
  purged_hash text not null,
  newest_id bigint not null,
  newest_hash text not null
);

-- The hash of an audit row: SHA-256, in hex, of the hash before it and the row as the text of a jsonb object, in UTF-8.
create function runlane.audit_hash(previous text, audit runlane.audit_events) returns text language sql stable as $$
  select encode(sha256(convert_to(previous || jsonb_build_object('id', audit.id,
    'at', to_char(audit.at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
    'actor', audit.actor, 'role', audit.role, 'action', audit.action, 'target', audit.target, 'run_id', audit.run_id,
    'reason', audit.reason, 'outcome', audit.outcome, 'code', audit.code, 'request_id', audit.request_id,
    'before', audit.before, 'after', audit.after)::text, 'UTF8')), 'hex')
$$;

-- Rows of before keep their ids.
do $$
declare
  audit runlane.audit_events;
  newest_id bigint := 0;
  newest_hash text := '';
begin
  for audit in select * from runlane.audit_events order by id loop
    newest_id := audit.id;
    newest_hash := runlane.audit_hash(newest_hash, audit);
    update runlane.audit_events set hash = newest_hash where id = audit.id;
  end loop;
  insert into runlane.audit_chain (purged_id, purged_hash, newest_id, newest_hash)
  values (0, '', newest_id, newest_hash);
end $$;

-- Until its transaction commits a row has an id below zero, which nobody sees.
alter table runlane.audit_events alter column id drop identity;
create sequence runlane.audit_events_unchained increment -1;
alter table runlane.audit_events alter column id set default nextval('runlane.audit_events_unchained');

-- Appends a row to the chain, whoever has written it. As the transaction commits, so that no client that is slow, or
-- frozen, between a row and its commit keeps the others waiting: id order, chain order and commit order are one.
create function runlane.chain_audit() returns trigger language plpgsql as $$
declare
  chain runlane.audit_chain;
  written bigint := new.id;
begin
  update runlane.audit_chain set newest_id = newest_id + 1 returning * into chain;
  new.id := chain.newest_id;
  if octet_length(new.before::text) > 4096 then new.before := '{"too_large": true}'; end if;
  if octet_length(new.after::text) > 4096 then new.after := '{"too_large": true}'; end if;
  new.hash := runlane.audit_hash(chain.newest_hash, new);
  update runlane.audit_events set id = new.id, before = new.before, after = new.after, hash = new.hash
  where id = written;
  update runlane.audit_chain set newest_hash = new.hash;
  return null;
end $$;
create constraint trigger audit_events_chained after insert on runlane.audit_events
  deferrable initially deferred for each row execute function runlane.chain_audit();

-- The rows where the chain is broken: no row, no tampering. A row that is named was changed, or is not one of ours, or what
-- stood before it was removed; `newest_id` of audit_chain is named where the end is missing.
create function runlane.audit_verify() returns table (id bigint, problem text) language plpgsql stable as $$
declare
  chain runlane.audit_chain;
  audit runlane.audit_events;
  previous text;
begin
  select * into chain from runlane.audit_chain;
  previous := chain.purged_hash;
  for audit in select * from runlane.audit_events a order by a.id loop
    if audit.hash is null or audit.hash <> runlane.audit_hash(previous, audit) then
      id := audit.id;
      problem := 'the row was changed or inserted, or rows before it were removed';
      return next;
    end if;
    previous := coalesce(audit.hash, '');
  end loop;
  if previous is distinct from chain.newest_hash then
    id := chain.newest_id;
    problem := 'the newest row is not the end of the chain: rows after the last one were removed, or others were added';
    return next;
  end if;
end $$;

-- Deletes the rows from before a time, and says so in a row of its own. What is left goes on from the last hash deleted.
-- Answers how many rows went.
create function runlane.audit_purge(cutoff timestamptz) returns int language plpgsql volatile as $$
declare
  last runlane.audit_events;
  purged int;
begin
  select * into last from runlane.audit_events a
  where a.id < coalesce((select min(y.id) from runlane.audit_events y where y.at >= cutoff), 9223372036854775807)
  order by a.id desc limit 1;
  if last.id is null then return 0; end if;
  delete from runlane.audit_events a where a.id <= last.id;
  get diagnostics purged = row_count;
  update runlane.audit_chain set purged_id = last.id, purged_hash = last.hash;
  insert into runlane.audit_events (at, actor, role, action, target, outcome, audit_key, after)
  values (runlane.now(), 'database:' || session_user, 'system', 'audit.purge', 'audit rows', 'applied', gen_random_uuid()::text,
    jsonb_build_object('rows', purged, 'up_to_id', last.id));
  return purged;
end $$;
