-- no-transaction
-- The relays that gave up, by cause, and within a cause in the order in which they gave up.
create index concurrently if not exists relay_cause_idx on relay (cause, exhausted_at, id) where exhausted_at is not null;
