-- no-transaction
create index concurrently if not exists relay_name_idx on relay_name using gin (name gin_trgm_ops);
