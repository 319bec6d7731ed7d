-- no-transaction
-- 7 bytes per event instead of 43.
create index concurrently if not exists event_kind_idx on event (kind);
