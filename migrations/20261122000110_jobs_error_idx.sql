-- no-transaction
-- Failed jobs by a part of their last error. Killed jobs lie far apart among done ones, so reading each for its
-- error costs a page of the table.
create index concurrently if not exists jobs_error_idx on apalis.jobs using gin ((last_result->>'Err') gin_trgm_ops)
    where status in ('Killed', 'Failed');
