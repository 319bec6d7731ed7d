-- no-transaction
create index concurrently if not exists jobs_subject_idx on apalis.jobs (job_subject(job), done_at)
    where status in ('Done', 'Killed');
