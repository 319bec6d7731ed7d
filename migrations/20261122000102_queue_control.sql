-- What operators ask of queues and processes. Each process reads it every 5 s.

-- Why the queue is paused; null for a pause of an earlier release.
alter table paused_queue add column reason text check (length(reason) between 1 and 300);

-- How many jobs of a queue each process runs at the same time, instead of the number that it is configured with.
create table queue_concurrency (
    queue text primary key,
    jobs int not null check (jobs between 1 and 1000),
    set_at timestamptz not null default now(),
    -- as in operator_action
    set_by text not null,
    reason text check (length(reason) between 1 and 300)
);

-- A process that runs workers. The id is new at every start.
create table process (
    id uuid primary key,
    -- version, host and process id, as in apalis.workers.layers
    name text not null check (length(name) <= 300),
    wings text[] not null,
    -- the queues that it serves: {"sync-relay": {"jobs": 16, "configured": 16}}
    stations jsonb not null check (jsonb_typeof(stations) = 'object'),
    -- resident memory; null if the system does not tell
    memory_bytes bigint check (memory_bytes >= 0),
    started_at timestamptz not null default now(),
    last_seen_at timestamptz not null default now(),
    -- since when it takes no work, who asked for that, and why
    drain_at timestamptz,
    drain_by text,
    drain_reason text check (length(drain_reason) between 1 and 300),
    check ((drain_at is null) = (drain_by is null) and (drain_at is not null or drain_reason is null))
);
