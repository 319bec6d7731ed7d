-- Finished jobs $1 to $2: one in a hundred was killed.
insert into apalis.jobs (id, job_type, job, status, attempts, max_attempts, run_at, done_at, lock_at, last_result)
select 'B' || lpad(n::text, 25, '0'),
       case n % 4 when 0 then 'prune' when 1 then 'mirror' else 'sync-relay' end,
       convert_to(json_build_object('v', 1, 'relay_id', n)::text, 'UTF8'),
       case when n % 100 = 0 then 'Killed' else 'Done' end, 1, 7,
       now() - make_interval(secs => n * 0.1), now() - make_interval(secs => n * 0.1), now() - make_interval(secs => n * 0.1),
       case when n % 100 = 0 then '{"Err": "zooid answered 422 Unprocessable Entity"}'::jsonb else '{"Ok": null}'::jsonb end
from generate_series($1::bigint, $2::bigint) n
