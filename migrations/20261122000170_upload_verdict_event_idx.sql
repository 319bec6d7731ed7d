-- no-transaction
-- Purge removes the verdicts of the events that it removes.
create index concurrently if not exists upload_verdict_event_idx on upload_verdict (event_id);
