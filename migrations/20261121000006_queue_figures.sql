-- The done jobs of one queue, by when they ended: the counterpart of jobs_killed_idx. The lists of
-- jobs and the figures of queues read it.
create index jobs_done_idx on apalis.jobs (job_type, done_at) where status = 'Done';
