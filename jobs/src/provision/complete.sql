-- Settles attempts that reached zooid, each under its own guards: the relay by its lease, the job by
-- its worker and attempt. Relay, activity and job are written together; a relay whose row is locked is
-- skipped. The instances have answered, which closes their breakers.
with asked as (
    select * from unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[],
                         $6::bigint[], $7::jsonb[], $8::text[], $9::jsonb[])
        as asked (job_id, worker, attempt, relay_id, epoch, carried, detail, instance, sent)
), held as materialized (
    select asked.* from relay
    join asked on relay.id = asked.relay_id and relay.lease_job = asked.job_id
              and relay.lease_epoch = asked.epoch
    order by relay.id
    for update of relay skip locked
), job as (
    update apalis.jobs job
    set status = 'Done', attempts = held.attempt, done_at = now(), lock_by = null,
        last_result = '{"Ok": "synced"}'
    from held
    where job.id = held.job_id and job.lock_by = held.worker
      and job.attempts = held.attempt - 1 and job.status = 'Running'
    returning job.id
), settled as (
    update relay
    set synced_generation = held.carried, sent = held.sent,
        provisioned_at = coalesce(provisioned_at, now()),
        sync_error = case when generation = held.carried then '' else sync_error end,
        failure_kind = case when generation = held.carried then null else failure_kind end,
        attempts = case when generation = held.carried then 0 else relay.attempts end,
        retry_at = null, exhausted_at = null,
        lease_owner = null, lease_job = null, lease_until = null
    from held join job on job.id = held.job_id
    where relay.id = held.relay_id
    returning relay.id, relay.tenant_pubkey, held.job_id, held.detail, held.instance,
              relay.generation = held.carried as in_step,
              greatest(extract(epoch from now() - relay.updated_at), 0) as latency
), answered as materialized (
    select record_answers(array_agg(distinct instance)) as relays from settled
), recorded as (
    insert into activity (tenant_pubkey, activity_type, resource_id, detail)
    select tenant_pubkey, 'complete_relay_sync', id, detail from settled
)
select job_id as "job_id!", in_step as "in_step!", latency::float8 as "latency!",
       (select relays from answered) as "failed_before: Vec<RelayId>"
from settled
