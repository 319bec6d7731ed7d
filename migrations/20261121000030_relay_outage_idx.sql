-- no-transaction
create index concurrently if not exists relay_outage_idx on relay (outage_instance, id) where outage_instance is not null;
