-- no-transaction
-- Without a list of pending entries, which every search would have to read.
create index concurrently if not exists event_tags_idx on event using gin (tag_keys(plain_tags(tags))) with (fastupdate = off);
