-- A claim finds its jobs by their ids: each one walked all held jobs, with the dead entries of their index, and computed
-- anew for each what may start.
create or replace function claim_relays(
    job_ids text[], workers text[], spent int[], relay_ids text[], lease_secs float8,
    served_domains text[], served_by text[], otherwise text, max_in_flight bigint
)
 returns setof relay language plpgsql
-- Bitmap scans are disabled: only plain index scans mark dead entries, and the index of held jobs
-- collects thousands of dead entries per second. To plan the statement takes ten times as long as to run it.
 set enable_bitmapscan = off
 set plan_cache_mode = force_generic_plan
as $$
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
               when opened_at is null then permits
               when retry_at > now() or probe_until > now() then 0
               else least(permits, 1) end)
    into gate_names, gate_permits
    from zooid_instance
    left join (select metadata->'instance' as instance, count(*) as calls
               from apalis.jobs
               where status = 'Running' and lock_at > now() - make_interval(secs => lease_secs)
               group by 1) in_flight on instance = name
    cross join lateral (select greatest(
        calls_in_flight(calls_allowed, max_in_flight) - coalesce(calls, 0), 0) as permits) gate
    where name = any(names);
    return query
    with asked as (
        select * from unnest(job_ids, workers, spent, relay_ids) with ordinality
            as asked (job_id, worker, attempts, relay_id, place)
    ), held as materialized (
        -- Locked relays are skipped: no claim may wait while the rows of the instances are locked.
        select r.id, coalesce(served.instance, otherwise) as instance,
               -- A relay in step is called to confirm an unanswered call, and if the holder of its last
               -- lease died. One that gave up waits for a new generation.
               (not r.synced or coalesce(r.confirm_at <= now(), false) or r.lease_job is not null)
               and r.exhausted_at is null
               and (r.lease_until is null or r.lease_until <= now()) as is_to_call
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
    ), startable as materialized (
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
            metadata = crashes_as(crashes_of(metadata))
                || hstore('key', idempotency_key)
                || case when s.is_to_call then hstore('instance', s.instance) else ''::hstore end
        from startable s
        where j.id = s.job_id and coalesce(j.lock_by, '') = s.worker and j.attempts = s.attempts
          and coalesce(j.status, '') = 'Queued'
        returning j.id, s.worker, s.relay_id, s.is_to_call, s.instance
    ), probe as (
        update zooid_instance z
        set probe_job = job.id, probe_until = now() + make_interval(secs => lease_secs)
        from job
        where job.is_to_call and z.name = job.instance and z.opened_at is not null
    )
    update relay r
    set lease_owner = job.worker, lease_job = job.id, lease_epoch = r.lease_epoch + 1,
        lease_until = now() + make_interval(secs => lease_secs),
        -- The holder of the last lease died, perhaps with a call under way.
        confirm_at = case when r.lease_job is null then r.confirm_at
                          else greatest(r.confirm_at, r.lease_until + late_by()) end
    from job
    where r.id = job.relay_id and job.is_to_call
    returning r.*;
end $$;
