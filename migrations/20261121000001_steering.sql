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
