-- no-transaction
-- Jobs that wait and have no key, by what they are about: the events of a subscription, the orders of an operator,
-- lists of events to upload. Others are found by their key.
create index concurrently if not exists jobs_keyless_idx on apalis.jobs (job_subject(job), run_at)
    where status in ('Pending', 'Failed') and idempotency_key is null;
