-- A summary of the latencies of a minute's successes: counts in buckets, each 1.02 / 0.98 times as long as the
-- one before, so that percentiles are within 2 %. It replaces `latency`, which the previous release still
-- reads and writes; a later release drops that column.
alter table sync_minute add column latencies bigint[] not null default '{}';
