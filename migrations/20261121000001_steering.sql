-- Seeing and steering: zooid instances with their breakers, paused queues, counters, the schedule's
-- rows, what operators did, and the dashboard's sessions. Only adds; workers of the release before
-- go on beside it.

-- One API of zooid, named by its URL without credentials. Closed: opened_at is null. Open: until
-- retry_at. Half-open: from then on; one job at a time is its probe.
create table zooid_instance (
    name text_2048 primary key,
    opened_at timestamptz,
    retry_at timestamptz,
    -- Probes that failed in a row; each doubles the wait.
    failed_probes integer not null default 0,
    probe_job text,
    probe_until timestamptz,
    last_error text_1000 not null default '',
    constraint zooid_instance_is_consistent check (
        (opened_at is null) = (retry_at is null)
        and (probe_job is null) = (probe_until is null)
        and (opened_at is not null or (probe_job is null and failed_probes = 0)))
);

-- Outage failures (no answer, or 5xx) since the instance's last answer.
create table zooid_failure (
    id bigint generated always as identity primary key,
    instance text not null,
    relay_id text not null,
    failed_at timestamptz not null default now()
);
create index zooid_failure_instance_idx on zooid_failure (instance, id);

-- What zooid was last told and took, secrets masked: for people.
alter table relay add column sent jsonb;

-- The claim of fetched jobs; `jobs/src/queue/claim.rs` says what it is for. A function, because it is
-- three statements of which each must see what the one before waited for, and one round trip.
create function claim_relays(
    job_ids text[], workers text[], spent integer[], relay_ids text[], lease_secs float8,
    served_domains text[], served_by text[], otherwise text, max_in_flight bigint
-- Without bitmaps: only plain scans of an index mark its dead entries, and the index of held jobs has
-- thousands of those a second after they were made.
) returns setof relay language plpgsql set enable_bitmapscan = off as $$
declare
    names constant text[] := served_by || otherwise;
    known bigint;
    gate_names text[];
    gate_permits bigint[];
begin
    -- The claim need not be on disk before the call goes: one that a crash takes back is a job that
    -- is fetched again, and its late settle finds no lease.
    perform set_config('synchronous_commit', 'off', true);
    -- Processes count the calls in flight one after the other.
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
        -- Relays that somebody has locked are left for later: nothing waits while the gates are held.
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
            metadata = case when s.is_to_call then hstore('instance', s.instance) else ''::hstore end
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

-- A queue from which nobody fetches.
create table paused_queue (
    queue text primary key,
    paused_at timestamptz not null default now(),
    paused_by text not null
);

-- What became of syncs, per minute: for charts, so a process may lose its last second of it.
-- latency counts successes by the time from change to settle; bucket i ends at 2^i × 5 ms.
create table sync_minute (
    minute timestamptz primary key,
    synced bigint not null default 0,
    failed bigint not null default 0,
    gave_up bigint not null default 0,
    latency bigint[] not null
);

-- Recurring jobs as the last process knew them.
create table recurring_job (
    queue text primary key,
    expression text not null,
    next_at timestamptz,
    last_started_at timestamptz,
    last_ended_at timestamptz,
    last_error text_1000
);

-- Every action of an operator that is not a relay's own mutation, and what came of it.
create table operator_action (
    id bigint generated always as identity primary key,
    created_at timestamptz not null default now(),
    who text not null,
    action text not null,
    target text not null default '',
    result text_1000 not null
);

-- Sessions of the dashboard, by the hash of their token.
create table dashboard_session (
    token_hash bytea primary key,
    who text not null,
    role text not null check (role in ('operator', 'viewer')),
    created_at timestamptz not null default now(),
    expires_at timestamptz not null,
    revoked_at timestamptz
);

-- What lets in once: links, by the hash of their token, and signed events, by their id.
create table dashboard_ticket (
    hash bytea primary key,
    expires_at timestamptz not null,
    used_at timestamptz
);

-- How many relays there are, by status: sharded, so that creations do not queue for one row.
create table relay_count (
    shard integer not null,
    status text not null,
    relays bigint not null,
    primary key (shard, status)
);

create function count_relays() returns trigger language plpgsql as $$
begin
    -- In the order of the key, so that two of these cannot deadlock.
    if tg_op = 'INSERT' then
        insert into relay_count as c (shard, status, relays)
        select pg_backend_pid() % 32, status, count(*) from fresh group by status order by status
        on conflict (shard, status) do update set relays = c.relays + excluded.relays;
    else
        insert into relay_count as c (shard, status, relays)
        select pg_backend_pid() % 32, status, -count(*) from stale group by status order by status
        on conflict (shard, status) do update set relays = c.relays + excluded.relays;
    end if;
    return null;
end $$;

lock table relay in share row exclusive mode; -- nothing is created between the count and the triggers
insert into relay_count (shard, status, relays) select 0, status, count(*) from relay group by status;
create trigger relay_count_insert after insert on relay
    referencing new table as fresh for each statement execute function count_relays();
create trigger relay_count_delete after delete on relay
    referencing old table as stale for each statement execute function count_relays();

-- A status changes by an update that names it; transition tables do not go with column lists, so
-- this one is per row, and only for rows that differ.
create function count_status() returns trigger language plpgsql as $$
begin
    insert into relay_count as c (shard, status, relays)
    select pg_backend_pid() % 32, moved.status, moved.n
    from (values (old.status::text, -1), (new.status::text, 1)) moved (status, n)
    order by moved.status
    on conflict (shard, status) do update set relays = c.relays + excluded.relays;
    return null;
end $$;
create trigger relay_count_status after update of status on relay
    for each row when (old.status is distinct from new.status) execute function count_status();

-- Killed jobs are few among the finished ones.
create index jobs_killed_idx on apalis.jobs (job_type, done_at) where status = 'Killed';
-- Jobs that wait for a breaker; see `release_held`.
create index jobs_held_by_idx on apalis.jobs ((metadata->'held_by'))
    where metadata->'held_by' is not null;

-- What the dashboard's counts and lists walk.
create index relay_waiting_idx on relay (updated_at, id) where not synced and exhausted_at is null;
create index relay_retrying_idx on relay (id)
    where not synced and attempts > 0 and exhausted_at is null;
create index relay_gave_up_idx on relay (exhausted_at desc, id desc) where exhausted_at is not null;
create index relay_switched_off_idx on relay (created_at desc, id desc) where status <> 'active';
create index relay_subdomain_idx on relay (subdomain collate "C", id);
