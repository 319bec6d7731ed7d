-- no-transaction
create index concurrently if not exists event_source_upstream_idx on event_source (upstream_id);
