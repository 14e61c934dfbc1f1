-- What: where the deletion of old runs has come to, so that a reader whose cursor is older is told.
-- Locks: one new table. Safe online: yes.

create table runlane.purged (
  single boolean primary key default true check (single),
  -- The highest event id that was deleted.
  event_id bigint not null
);
insert into runlane.purged (event_id) values (0);
