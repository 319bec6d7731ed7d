-- no-transaction
-- Killed jobs that no operator has seen: what needs attention is found however many were seen since.
create index concurrently if not exists jobs_unseen_idx on apalis.jobs (job_type, done_at)
    where status = 'Killed' and not coalesce(exist(metadata, 'seen'), false);
