-- no-transaction
-- event_kind_idx takes its place.
drop index concurrently if exists event_kind;
