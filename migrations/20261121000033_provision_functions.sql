-- How far the current round of the background re-assertion has come; one row.
create table reassertion (
    is_only boolean primary key default true check (is_only),
    -- The last relay of this round; empty at its start.
    after text not null default '',
    done bigint not null default 0,
    round_started_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);


-- A new generation starts without the failures of the previous one. If zooid was ever called for the
-- relay, zooid may hold its previous host until the rename arrives. At most 100 are kept: the first, which zooid
-- confirmed, and the latest.
create or replace function begin_generation() returns trigger language plpgsql as $$
declare
    old_host constant text := old.subdomain || '.' || old.zooid_domain;
    new_host constant text := new.subdomain || '.' || new.zooid_domain;
begin
    new.sync_error := '';
    new.failure_kind := null;
    new.attempts := 0;
    new.retry_at := null;
    new.exhausted_at := null;
    new.outage_instance := null;
    new.updated_at := now();
    if old_host <> new_host and new.lease_epoch > 0 then
        new.old_hosts := array_remove(new.old_hosts, old_host) || old_host;
        if cardinality(new.old_hosts) > 100 then
            new.old_hosts := new.old_hosts[1:1] || new.old_hosts[3:];
        end if;
    end if;
    return new;
end $$;


-- How long after the client gave up zooid may still apply a call.
create function late_by() returns interval language sql immutable parallel safe as $$
    select interval '60 seconds'
$$;

-- The limit of calls in flight to an instance: what it has shown to bear, at most the operator's limit.
-- An instance that has not answered yet starts with 8.
create function calls_in_flight(calls_allowed float8, most bigint) returns bigint
language sql immutable parallel safe as $$
    select greatest(least(floor(coalesce(calls_allowed, 8))::bigint, most), 1)
$$;

-- Adapts the limit of calls in flight to the latency of calls that were answered: additive increase,
-- multiplicative decrease. `seconds` is the mean latency of `calls` calls. The limit doubles per round
-- of calls until the first decrease, and then grows by one per round. It falls by three tenths when calls take
-- longer than a third of the time-out, at most once per round. docs/adr/0010-calls-in-flight.md
create function adapt_calls(instance text, calls bigint, seconds float8, most bigint, timeout_secs float8)
returns void language sql as $$
    update zooid_instance
    set calls_allowed = case
            when seconds > timeout_secs / 3
                then greatest(least(coalesce(calls_allowed, 8), most) * 0.7, 1)
            when limited_at is null then least(coalesce(calls_allowed, 8) + calls, most)
            else least(calls_allowed + calls / calls_allowed, most) end,
        limited_at = case when seconds > timeout_secs / 3 then now() else limited_at end
    where name = instance
      and case when seconds > timeout_secs / 3
               then coalesce(limited_at < now() - make_interval(secs => seconds), true)
                    and coalesce(calls_allowed, 8) > 1
               else seconds < timeout_secs / 6 and coalesce(calls_allowed, 8) < most end
$$;

-- Halves the limit after a call that was not answered in time, at most once per time-out.
create function halve_calls(instance text, most bigint, timeout_secs float8) returns void language sql as $$
    update zooid_instance
    set calls_allowed = greatest(least(coalesce(calls_allowed, 8), most) / 2, 1), limited_at = now()
    where name = instance
      and coalesce(limited_at < now() - make_interval(secs => timeout_secs), true)
$$;

-- Claims fetched jobs; `jobs/src/provision/claim.rs` describes the claim.
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
            metadata = crashes_as(crashes_of(metadata))
                || hstore('key', idempotency_key)
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
        lease_until = now() + make_interval(secs => lease_secs),
        -- The holder of the last lease died, perhaps with a call under way.
        confirm_at = case when r.lease_job is null then r.confirm_at
                          else greatest(r.confirm_at, r.lease_until + late_by()) end
    from job
    where r.id = job.relay_id and job.is_to_call
    returning r.*;
end $$;


-- Records that instances answered: deletes their outage failures, closes their open breakers, and notes
-- the recovery if relays gave up in the outage. Returns null if there is nothing to release, else the relays
-- whose calls had failed before a breaker closed.
create or replace function record_answers(instances text[]) returns text[] language plpgsql as $$
declare
    relays text[];
    recovered boolean;
begin
    with forgotten as (
        delete from zooid_failure where instance = any(instances) returning relay_id
    )
    select coalesce(array_agg(distinct relay_id), '{}') into relays from forgotten;
    update zooid_instance set recovered_at = clock_timestamp(), has_given_up = false
    where has_given_up and name = any(instances);
    recovered := found;
    update zooid_instance
    set opened_at = null, retry_at = null, failed_probes = 0, probe_job = null, probe_until = null,
        last_error = '', refuses_key = false
    where opened_at is not null and name = any(instances);
    return case when found then relays when recovered then '{}' end;
end $$;
