-- Claims fetched jobs; `jobs/src/provision/claim.rs` describes the claim. It is a function because
-- it runs several statements in one round trip. Each of them must see the rows that the previous
-- one waited for.
create or replace function claim_relays(
    job_ids text[], workers text[], spent integer[], relay_ids text[], lease_secs float8,
    served_domains text[], served_by text[], otherwise text, max_in_flight bigint
-- Bitmap scans are disabled: only plain index scans mark dead entries, and the index of held jobs
-- collects thousands of dead entries per second.
) returns setof relay language plpgsql set enable_bitmapscan = off as $$
declare
    names constant text[] := served_by || otherwise;
    known bigint;
    gate_names text[];
    gate_permits bigint[];
begin
    -- The claim need not be on disk before the call starts. If a crash loses it, the job is fetched
    -- again, and the late settle of the lost claim finds no lease.
    perform set_config('synchronous_commit', 'off', true);
    -- This lock makes processes count the calls in flight one after the other.
    perform from zooid_instance where name = any(names) order by name for update;
    get diagnostics known = row_count;
    if known < (select count(distinct name) from unnest(names) name) then
        insert into zooid_instance (name) select distinct unnest(names) on conflict do nothing;
        perform from zooid_instance where name = any(names) order by name for update;
    end if;
    select array_agg(name), array_agg(case
               when opened_at is null then greatest(max_in_flight - coalesce(calls, 0), 0)
               when retry_at > now() or probe_until > now() then 0
               else least(greatest(max_in_flight - coalesce(calls, 0), 0), 1) end)
    into gate_names, gate_permits
    from zooid_instance
    left join (select metadata->'instance' as instance, count(*) as calls
               from apalis.jobs
               where status = 'Running' and lock_at > now() - make_interval(secs => lease_secs)
               group by 1) in_flight on instance = name
    where name = any(names);
    return query
    with asked as (
        select * from unnest(job_ids, workers, spent, relay_ids) with ordinality
            as asked (job_id, worker, attempts, relay_id, place)
    ), held as materialized (
        -- Locked relays are skipped: no claim may wait while the rows of the instances are locked.
        select r.id, coalesce(served.instance, otherwise) as instance,
               not r.synced and (r.lease_until is null or r.lease_until <= now()) as is_to_call
        from relay r
        left join unnest(served_domains, served_by) as served (domain, instance)
            on served.domain = r.zooid_domain
        where r.id = any(relay_ids)
        order by r.id
        for update of r skip locked
    ), ranked as (
        select asked.*, held.instance, held.is_to_call,
               row_number() over (partition by held.instance, held.is_to_call order by place) as rank
        from asked join held on held.id = asked.relay_id
    ), startable as (
        select job_id, worker, attempts, relay_id, instance, is_to_call
        from ranked
        left join unnest(gate_names, gate_permits) as gate (name, permits) on gate.name = instance
        where not is_to_call or rank <= gate.permits
        union all
        select job_id, worker, attempts, relay_id, null, false from asked
        where not exists (select from relay r where r.id = asked.relay_id)
    ), job as (
        update apalis.jobs j
        set status = 'Running', idempotency_key = null, lock_at = now(),
            metadata = hstore('key', idempotency_key)
                || case when s.is_to_call then hstore('instance', s.instance) else ''::hstore end
        from startable s
        where j.id = s.job_id and j.lock_by = s.worker and j.attempts = s.attempts
          and j.status = 'Queued'
        returning j.id, s.worker, s.relay_id, s.is_to_call, s.instance
    ), probe as (
        update zooid_instance z
        set probe_job = job.id, probe_until = now() + make_interval(secs => lease_secs)
        from job
        where job.is_to_call and z.name = job.instance and z.opened_at is not null
    )
    update relay r
    set lease_owner = job.worker, lease_job = job.id, lease_epoch = r.lease_epoch + 1,
        lease_until = now() + make_interval(secs => lease_secs)
    from job
    where r.id = job.relay_id and job.is_to_call
    returning r.*;
end $$;

-- A started or killed SyncRelay job keeps its key in its metadata. The queue can then requeue the
-- job and name its relay without reading the payload.
update apalis.jobs job
set metadata = coalesce(metadata, ''::hstore) || hstore('key', 'relay:' || relay.id)
from relay
where relay.lease_job = job.id and job.status = 'Running' and job.idempotency_key is null;

update apalis.jobs
set metadata = (metadata - 'relay'::text) || hstore('key', 'relay:' || (metadata->'relay'))
where status = 'Killed' and metadata->'relay' is not null;

-- Returns whether the subject of a killed job has reached its wanted state since, so that the job
-- needs no attention. `key` is the key of the job. Each wing adds the keys of its jobs here.
create function is_settled(key text) returns boolean language sql stable as $$
    select key like 'relay:%'
       and exists (select from relay where id = substr(key, 7) and synced);
$$;

-- A new generation starts without the failures of the previous one.
create function begin_generation() returns trigger language plpgsql as $$
begin
    new.sync_error := '';
    new.failure_kind := null;
    new.attempts := 0;
    new.retry_at := null;
    new.exhausted_at := null;
    new.updated_at := now();
    return new;
end $$;
create trigger relay_generation before update of generation on relay
    for each row when (new.generation > old.generation) execute function begin_generation();

-- Records that instances answered: deletes their outage failures and closes their open breakers.
-- Returns the relays whose calls had failed if a breaker closed, else null.
create function record_answers(instances text[]) returns text[] language plpgsql as $$
declare
    relays text[];
begin
    with forgotten as (
        delete from zooid_failure where instance = any(instances) returning relay_id
    )
    select coalesce(array_agg(distinct relay_id), '{}') into relays from forgotten;
    update zooid_instance
    set opened_at = null, retry_at = null, failed_probes = 0, probe_job = null, probe_until = null,
        last_error = ''
    where opened_at is not null and name = any(instances);
    return case when found then relays end;
end $$;
