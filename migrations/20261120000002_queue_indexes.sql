-- What our queue needs of apalis's tables, which exist before this runs.

-- Rescue looks only at jobs that a worker holds.
create index jobs_held_idx on apalis.jobs (lock_at) where status in ('Queued', 'Running');
-- Pruning walks finished jobs by age; status and lists walk the given-up ones.
create index jobs_finished_idx on apalis.jobs (done_at) where status in ('Done', 'Killed');

-- Two indexes that apalis made twice; each would be written at every step of every job.
drop index if exists apalis.lidx;          -- idx_apalis_jobs_lock_by
drop index if exists apalis.unique_job_id; -- jobs_pkey

-- A queue's rows live for seconds: vacuum by hundreds, not by a fifth of the table.
alter table apalis.jobs set (
    autovacuum_vacuum_scale_factor = 0.01,
    autovacuum_vacuum_threshold = 500,
    autovacuum_analyze_scale_factor = 0.05,
    autovacuum_vacuum_cost_delay = 0
);
