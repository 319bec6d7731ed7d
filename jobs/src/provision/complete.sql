-- Settles attempts that reached zooid, each under its own guards: the relay by its lease, the job by
-- its worker and attempt. Relay, activity and job are written together; a relay whose row is locked is
-- skipped. The instances have answered, which closes their breakers and adapts their limits of calls.
with asked as (
    select * from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::bigint[],
                         $7::jsonb[], $8::text[], $9::jsonb[], $10::text[], $11::float8[])
        as asked (job_id, worker, attempt, relay_id, epoch, carried, detail, instance, sent, identity, seconds)
), locked as materialized (
    select asked.*, relay.old_hosts, relay.confirm_at, relay.generation = carried as is_current,
           -- An earlier call may still land: this one cannot confirm that zooid stays as it is now.
           coalesce(relay.confirm_at > relay.lease_until - make_interval(secs => $12), false) as is_open
    from relay
    join asked on relay.id = asked.relay_id and relay.lease_job = asked.job_id
              and relay.lease_epoch = asked.epoch
    order by relay.id
    for update of relay skip locked
), held as materialized (
    -- The job waits for the confirmation itself, unless a newer job has its key.
    select locked.*, is_open and is_current
               and not exists (select from apalis.jobs newer
                               where newer.job_type = $13 and newer.idempotency_key = 'relay:' || relay_id
                                 and newer.id <> job_id) as waits
    from locked
), job as (
    update apalis.jobs job
    set status = case when waits then 'Pending' else 'Done' end,
        attempts = case when waits then 0 else held.attempt end,
        done_at = case when waits then null else now() end,
        run_at = case when waits then held.confirm_at else job.run_at end,
        idempotency_key = case when waits then metadata->'key' end,
        last_result = case when waits then '{"Ok": "synced; an earlier call is unanswered: to be confirmed"}'::jsonb
                           else '{"Ok": "synced"}'::jsonb end,
        lock_by = null
    from held
    -- Found by the primary key, see `queue`.
    where job.id = held.job_id and coalesce(job.lock_by, '') = held.worker
      and job.attempts = held.attempt - 1 and coalesce(job.status, '') = 'Running'
    returning job.id
), settled as (
    update relay
    set synced_generation = held.carried, sent = held.sent,
        identity = coalesce(held.identity, relay.identity),
        provisioned_at = coalesce(provisioned_at, now()),
        confirm_at = case when is_open then held.confirm_at end,
        old_hosts = case when is_open then relay.old_hosts
                         else array_remove(array[held.sent->>'host'], subdomain || '.' || zooid_domain) end,
        -- An older generation's success says nothing about the failures of the current one.
        sync_error = case when is_current then '' else sync_error end,
        failure_kind = case when is_current then null else failure_kind end,
        attempts = case when is_current then 0 else relay.attempts end,
        retry_at = case when is_current then null else retry_at end,
        exhausted_at = case when is_current then null else exhausted_at end,
        outage_instance = case when is_current then null else outage_instance end,
        lease_owner = null, lease_job = null, lease_until = null
    from held join job on job.id = held.job_id
    where relay.id = held.relay_id
    returning relay.id, relay.tenant_pubkey, held.job_id, held.detail, held.instance, held.seconds,
              held.is_current,
              case when held.old_hosts <> relay.old_hosts then held.old_hosts end as freed, held.sent->>'host' as host,
              greatest(extract(epoch from now() - relay.updated_at), 0) as latency
), answered as materialized (
    select record_answers(array_agg(distinct instance)) as relays from settled
), adapted as materialized (
    select adapt_calls(instance, calls, seconds, $14, $15)
    from (select instance, count(*) as calls, avg(seconds) as seconds
          from settled group by instance order by instance) calls
), recorded as (
    insert into activity (tenant_pubkey, activity_type, resource_id, detail)
    select tenant_pubkey, 'complete_relay_sync', id, detail from settled where detail <> 'null'
)
select job_id as "job_id!", is_current as "in_step!", latency::float8 as "latency!", freed, host,
       (select relays from answered) as "failed_before: Vec<RelayId>",
       -- As it was before this statement.
       exists (select from zooid_instance
               where name = settled.instance and (opened_at is not null or has_given_up)) as "was_out!",
       (select count(*) from adapted) as "adapted!"
from settled
