-- no-transaction
-- Entries with the same key share it (deduplication), which a time in the key would prevent: 33 bytes per event
-- instead of 92. A window of one author is found together with event_set.
create index concurrently if not exists event_author_idx on event (pubkey, kind);
