-- no-transaction
create index concurrently if not exists known_id_upstream_idx on known_id (upstream_id) where upstream_id is not null;
