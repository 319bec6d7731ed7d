-- A page of jobs, backward: the mirror image of `list_after.sql`, which says what the arms and the
-- parameters are. The rows come in reverse order, from the place towards the start of the list.
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
          and (run_at, id) < (coalesce($4::timestamptz, 'infinity'), coalesce($5::text, ''))
        order by run_at desc, id desc
        limit $8::bigint) job
    union all
    (select * from apalis.jobs
     where status in ('Queued', 'Running') and status = any($2) and job_type = any($1)
       and ($3 is null or strpos(last_result->>'Err', $3) > 0)
       and (run_at, id) < (coalesce($4, 'infinity'), coalesce($5, ''))
     order by run_at desc, id desc
     limit $8)
    union all
    select job.*
    from unnest($1) queue, lateral (
        select * from apalis.jobs
        where 'Done' = any($2) and status = 'Done'
          and ($3 is null or strpos(last_result->>'Err', $3) > 0)
          and (job_type, done_at) < (queue, 'infinity')
          and (job_type, done_at, id)
              > (queue, coalesce($6::timestamptz, '-infinity'), coalesce($7::text, ''))
        order by job_type, done_at, id
        limit $8) job
    union all
    select job.*
    from unnest($1) queue, lateral (
        select * from apalis.jobs
        where 'Killed' = any($2) and status = 'Killed'
          and ($3 is null or strpos(last_result->>'Err', $3) > 0)
          and (not $10::bool or killed_is_open(metadata, done_at))
          and (job_type, done_at) < (queue, 'infinity')
          and (job_type, done_at, id) > (queue, coalesce($6, '-infinity'), coalesce($7, ''))
        order by job_type, done_at, id
        limit $8) job
) job
order by done_at nulls last, case when done_at is null then run_at end desc,
         case when done_at is null then id end desc, id
limit $8
