-- no-transaction
create index concurrently if not exists jobs_retrying_idx on apalis.jobs (job_type, run_at)
    where status = 'Failed' and attempts < max_attempts;
