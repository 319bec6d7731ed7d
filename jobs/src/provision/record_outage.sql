-- Opens the breaker of an instance whose failures reach the policy, or counts the failed probe of one
-- that is open. Returns the seconds until the next probe; no row if the breaker is closed.
with failed as (
    select count(*) as calls, count(distinct relay_id) as relays,
           count(*) filter (where failed_at > now() - make_interval(secs => $4)) as recent_calls,
           count(distinct relay_id)
               filter (where failed_at > now() - make_interval(secs => $4)) as recent_relays
    from zooid_failure where instance = $1
), next as (
    select coalesce(opened_at, now()) as opened_at,
           case when probe_job = $2 then failed_probes + 1 else failed_probes end as failed_probes,
           probe_job is not distinct from $2 as is_probe, opened_at is null as opens
    from zooid_instance, failed
    where name = $1
      and (opened_at is not null
           or (recent_calls >= $5 and recent_relays >= $6)
           or ($3 and relays >= $6)
           -- Another process may have another key: then the refusals count as any other failure.
           or ($10 and not exists (
               select from apalis.jobs
               where job_type = $11 and status = 'Done' and done_at > now() - interval '1 minute'
                 and metadata->'instance' = $1)))
)
update zooid_instance instance
set opened_at = next.opened_at, last_error = $7, refuses_key = $10, failed_probes = next.failed_probes,
    retry_at = case when next.is_probe or next.opens
                    then now() + make_interval(secs => least($8 * 2 ^ least(next.failed_probes, 20), $9))
                    else instance.retry_at end,
    probe_job = case when not next.is_probe then instance.probe_job end,
    probe_until = case when not next.is_probe then instance.probe_until end
from next
where instance.name = $1
returning greatest(extract(epoch from instance.retry_at - now()), 0)::float8 as "open_for!"
