-- A page of jobs, forward: unfinished jobs by when they are due, then ended jobs, the last first.
-- Each arm reads at most $8 rows of an index: waiting jobs per queue and priority, held jobs, done
-- jobs per queue, killed jobs per queue. `list_before.sql` is the same in the other direction.
--
-- $1 queues, $2 statuses, $3 text in the error, $4 and $5 the place among unfinished jobs, $6 and $7
-- the place among ended jobs, $8 the size of the page, $9 priorities,
-- $10 whether only those killed jobs match that need attention.
--
-- The arms of ended jobs compare rows, because only the indexes by queue serve that. With plain
-- conditions PostgreSQL may choose the index of all ended jobs and filter out the other queues.
select id as "id!", job_type as "queue!", status as "state!", attempts as "attempts!",
       max_attempts as "max_attempts!", run_at as "run_at!", done_at,
       coalesce(priority, 0) as "priority!", lock_by, lock_at, left(last_result->>'Err', 1000) as error
from (
    select job.*
    from unnest($1::text[]) queue, unnest($9::int[]) level, lateral (
        select * from apalis.jobs
        where $2::text[] && array['Pending', 'Failed'] and job_type = queue and priority = level
          and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
          and status = any($2) and ($3::text is null or strpos(last_result->>'Err', $3) > 0)
          and (run_at, id) > (coalesce($4::timestamptz, '-infinity'), coalesce($5::text, ''))
        order by run_at, id
        limit $8::bigint) job
    union all
    (select * from apalis.jobs
     where status in ('Queued', 'Running') and status = any($2) and job_type = any($1)
       and ($3 is null or strpos(last_result->>'Err', $3) > 0)
       and (run_at, id) > (coalesce($4, '-infinity'), coalesce($5, ''))
     order by run_at, id
     limit $8)
    union all
    select job.*
    from unnest($1) queue, lateral (
        select * from apalis.jobs
        where 'Done' = any($2) and status = 'Done'
          and ($3 is null or strpos(last_result->>'Err', $3) > 0)
          and (job_type, done_at) > (queue, '-infinity')
          and (job_type, done_at, id)
              < (queue, coalesce($6::timestamptz, 'infinity'), coalesce($7::text, ''))
        order by job_type desc, done_at desc, id desc
        limit $8) job
    union all
    select job.*
    from unnest($1) queue, lateral (
        select * from apalis.jobs
        where 'Killed' = any($2) and status = 'Killed'
          and ($3 is null or strpos(last_result->>'Err', $3) > 0)
          and (not $10::bool or killed_is_open(metadata, done_at))
          and (job_type, done_at) > (queue, '-infinity')
          and (job_type, done_at, id) < (queue, coalesce($6, 'infinity'), coalesce($7, ''))
        order by job_type desc, done_at desc, id desc
        limit $8) job
) job
order by done_at desc nulls first, case when done_at is null then run_at end,
         case when done_at is null then id end, id desc
limit $8
