-- no-transaction
create index concurrently if not exists known_id_retry_idx on known_id (retry_after);
