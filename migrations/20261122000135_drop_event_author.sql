-- no-transaction
-- event_author_idx takes its place.
drop index concurrently if exists event_author;
