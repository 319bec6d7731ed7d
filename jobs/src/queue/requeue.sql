-- Jobs go back to the queue, each under its guard (worker, attempts, status). A job gets back the key
-- that it had when it was fetched; if a newer job has that key by now, the old one ends instead.
with asked as (
    select * from unnest($1::text[], $2::text[], $3::int[], $4::text[])
        as asked (id, worker, attempts, status)
), held as (
    select job.id, job.job_type, coalesce(job.idempotency_key, job.metadata->'key') as key,
           case $6::text
               when 'reset' then 0
               -- A row may hold any number: one that cannot grow must not fail the statement.
               when 'one' then least(job.attempts, 2147483645) + 1
               when 'one if started' then least(job.attempts, 2147483645) + (job.status = 'Running')::int
               else job.attempts
           end as attempts,
           case when $6 = 'reset' then 0
                else crashes_of(job.metadata)
                     + ($6 = 'one if started' and job.status = 'Running')::int end as crashes,
           crashes_of(job.metadata) as crashes_before
    from asked
    join apalis.jobs job on job.id = asked.id and job.lock_by is not distinct from asked.worker
                        and job.attempts = asked.attempts
    -- Found by the primary key, see `queue`.
    where coalesce(job.status, '') in ('Queued', 'Running')
      and (asked.status is null or job.status = asked.status)
    -- In the order in which an insertion of many jobs locks the rows whose keys it meets.
    order by job.job_type, key, job.id
    for update of job
), judged as (
    select held.*, exists (select from apalis.jobs newer
                           where newer.job_type = held.job_type and newer.idempotency_key = held.key
                             and newer.id <> held.id) as is_superseded
    from held
), requeued as (
    update apalis.jobs job
    set status = case when is_superseded then 'Done' else $5 end,
        idempotency_key = case when is_superseded then null else key end,
        attempts = judged.attempts,
        -- A retry needs room for a further attempt. A crash spends none of the allowed attempts: it
        -- raises the limit with the count, and `crashes` has a limit of its own.
        max_attempts = greatest(
            least(greatest(max_attempts, 1), 2147483645) + judged.crashes - judged.crashes_before,
            $7, case when $6 = 'one' then judged.attempts + 1 end),
        run_at = case when $8::float8 is null then run_at
                      else now() + make_interval(
                          secs => $8 * (1 + (random() * 2 - 1) * $9::float8) + random() * $10::float8)
                 end,
        done_at = case when is_superseded then now() end,
        -- The error of an attempt says more than that its successor crashed.
        last_result = coalesce(case when $6 = 'one if started' and last_result->>'Err' is not null
                                    then last_result end,
                               $11::jsonb,
                               case when is_superseded then '{"Ok": "superseded"}'::jsonb end,
                               last_result),
        metadata = case when is_superseded then ''::hstore
                        else crashes_as(judged.crashes)
                             || case when $12::text is null then ''::hstore
                                     else hstore('held_by', $12) end end,
        lock_by = null, lock_at = null
    from judged
    where job.id = judged.id
    returning job.id, job.run_at, is_superseded
)
select id as "id!", run_at as "run_at!", is_superseded as "is_superseded!" from requeued
