-- no-transaction
create index concurrently if not exists jobs_waiting_host_idx on apalis.jobs (id) where starts_with(metadata->'held_by', 'host:');
