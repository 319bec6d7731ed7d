-- no-transaction
create index concurrently if not exists relay_old_hosts_idx on relay using gin (old_hosts) where old_hosts <> '{}';
