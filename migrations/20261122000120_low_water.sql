-- Fetches that cost what their rows cost, and notifications for whatever comes to wait.
--
-- A job that ends leaves a dead entry in the index of waiting jobs. PostgreSQL cannot remove it while any
-- transaction holds an older snapshot open, and a look that starts at the oldest entry walks all of them. So
-- each queue and priority has a low-water mark: no waiting job is due before it. A look starts there.
--
-- What makes a job wait that is due in the past notes that in the same transaction (`queue_due_earlier`); a look
-- starts at the earlier of both. See docs/adr/0025-low-water-marks.md for the invariant and its proof.

create table queue_low_water (
    queue text not null,
    priority int not null,
    since timestamptz not null default '-infinity',
    primary key (queue, priority)
) with (fillfactor = 50);

create table queue_due_earlier (
    id bigint generated always as identity primary key,
    queue text not null,
    priority int not null,
    at timestamptz not null,
    xact xid8 not null default pg_current_xact_id()
);
create index queue_due_earlier_idx on queue_due_earlier (queue, priority, at);

-- What becomes due within this time of the writing clock is recent: a mark never passes it.
create function low_water_margin() returns interval language sql immutable parallel safe
return interval '5 s';

create function low_water(of_queue text, of_priority int) returns timestamptz language sql stable as $$
    -- Without a mark a note says nothing: the look starts at the beginning. A mark ahead of the clock is none: the
    -- clock was set back since.
    select coalesce((select least(case when since < clock_timestamp() then since else '-infinity' end, (select min(at) from queue_due_earlier
                                          where queue = of_queue and priority = of_priority))
                     from queue_low_water where queue = of_queue and priority = of_priority), '-infinity');
$$;

-- Called for each row that comes to wait.
create function note_waiting(job apalis.jobs) returns void language plpgsql as $$
declare
    -- Before the clock is read: the mark waits for every transaction that had a number when it read its own clock.
    mine constant xid8 := pg_current_xact_id();
    due_in constant float8 := extract(epoch from job.run_at - clock_timestamp());
begin
    if due_in < -extract(epoch from low_water_margin())
        and not exists (select from queue_due_earlier
                        where queue = job.job_type and priority = job.priority and at <= job.run_at and xact = mine)
    then
        insert into queue_due_earlier (queue, priority, at) values (job.job_type, job.priority, job.run_at);
    end if;
    -- Polls, one each 30 s, find what is due later. PostgreSQL sends equal notifications of a transaction once.
    if due_in < 35 then
        perform pg_notify('apalis::job::insert', json_build_object(
            'job_type', job.job_type, 'due_in', greatest(ceil(due_in * 10) / 10, 0) + 0)::text);
    end if;
end $$;

create function note_if_waiting() returns trigger language plpgsql as $$
begin
    if new.status in ('Pending', 'Failed') then
        perform note_waiting(new);
    end if;
    return new;
end $$;

-- Triggers fire in the order of their names: after `mend_job`, which may kill the row or change its priority. Without a
-- WHEN clause, as there.
create trigger note_waiting before insert or update on apalis.jobs
    for each row execute function note_if_waiting();

-- apalis's own trigger announces insertions only, one by one.
drop trigger notify_workers on apalis.jobs;

-- Takes up to `most` due jobs of a queue for a worker, by priority and then by age; none while the queue is
-- paused. The settings keep the ranges of the index: the planner knows neither how few jobs wait nor `most`.
create function fetch_jobs(for_worker text, of_queue text, most int)
returns table (id text, job bytea, attempts int, max_attempts int, crashes int, error text, waited float8)
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off set plan_cache_mode = force_generic_plan
as $$
#variable_conflict use_column
declare
    level int;
    low timestamptz;
    taken int;
begin
    if exists (select from paused_queue where queue = of_queue) then
        return;
    end if;
    -- The fetch need not be on disk before the jobs start: if a crash loses it, they are fetched again, and
    -- their late start finds another holder.
    perform set_config('synchronous_commit', 'off', true);
    foreach level in array array[10, 5, 0, -5] loop
        low := low_water(of_queue, level);
        return query
            with due as materialized (
                select job.id from apalis.jobs job
                where job.job_type = of_queue and job.priority = level
                  and (job.status = 'Pending' or (job.status = 'Failed' and job.attempts < job.max_attempts))
                  and job.run_at < now() and job.run_at >= low
                order by job.run_at
                limit most
                for update skip locked
            ), taken as (
                update apalis.jobs job
                set status = 'Queued', lock_by = for_worker, lock_at = now()
                from due where job.id = due.id
                returning job.*
            )
            select taken.id, taken.job, taken.attempts, taken.max_attempts, crashes_of(taken.metadata),
                   taken.last_result->>'Err', greatest(extract(epoch from now() - taken.run_at), 0)::float8
            from taken order by taken.run_at;
        get diagnostics taken = row_count;
        most := most - taken;
        exit when most <= 0;
    end loop;
end $$;

-- Moves the marks of queues forward. `barrier` is the number of a transaction that an earlier call returned with
-- the time that it read before; a first call passes nulls. A call that finds it still held returns it again. The marks move up to the margin before that time, once
-- every transaction with a smaller number has ended: what they made wait is then visible, and what later ones
-- make wait is due later, or noted.
create function advance_low_water(queues text[], barrier xid8, barrier_at timestamptz,
                                  out next_barrier xid8, out next_at timestamptz)
language plpgsql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
declare
    mark queue_low_water;
    upto timestamptz;
    highest timestamptz;
begin
    -- A number that this server has not reached is of another one.
    if barrier > pg_snapshot_xmax(pg_current_snapshot()) then
        barrier := null;
    end if;
    if pg_snapshot_xmin(pg_current_snapshot()) < barrier then
        next_barrier := barrier;
        next_at := barrier_at;
        return;
    end if;
    next_at := clock_timestamp();
    if barrier is not null then
        upto := barrier_at - low_water_margin();
        insert into queue_low_water (queue, priority)
        select named, level from unnest(queues) named, unnest(array[10, 5, 0, -5]) level
        where not exists (select from queue_low_water where queue = named and priority = level)
        on conflict do nothing;
        -- One after the other over all processes: a mark must not be overwritten by one that is computed from an
        -- older snapshot, with a note already removed.
        for mark in select * from queue_low_water where queue = any(queues) order by queue, priority
                    for update skip locked loop
            -- A mark ahead of the clock comes back.
            highest := least(greatest(mark.since, upto), clock_timestamp() - low_water_margin());
            with seen as materialized (
                select id, at from queue_due_earlier
                where queue = mark.queue and priority = mark.priority
            ), living as (
                select run_at from apalis.jobs
                where job_type = mark.queue and priority = mark.priority
                  and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
                  and run_at >= least(case when mark.since < clock_timestamp() then mark.since else '-infinity' end,
                                      (select min(at) from seen))
                  and run_at < highest
                order by run_at
                limit 1
            ), gone as (
                delete from queue_due_earlier where id in (select id from seen)
            ), next as (
                select coalesce((select run_at from living), highest) as since
            )
            update queue_low_water water set since = next.since
            from next
            where water.queue = mark.queue and water.priority = mark.priority and water.since <> next.since;
        end loop;
    end if;
    next_barrier := pg_current_xact_id();
end $$;

-- Returns for each queue with a waiting job whether one is due, and in how many seconds the next one is due that is
-- not due yet. Paused queues have none.
create function next_due(queues text[]) returns table (queue text, is_due boolean, due_in float8) language sql stable
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
    select named, bool_or(coalesce(first.run_at <= now(), false)), extract(epoch from min(later.run_at) - now())::float8
    from unnest(queues) named cross join unnest(array[10, 5, 0, -5]) level
    left join lateral (
        select run_at from apalis.jobs
        where job_type = named and priority = level
          and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
          and run_at >= low_water(named, level)
        order by run_at
        limit 1) first on true
    left join lateral (
        select run_at from apalis.jobs
        where job_type = named and priority = level
          and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
          and run_at > now()
        order by run_at
        limit 1) later on true
    where not exists (select from paused_queue paused where paused.queue = named)
    group by named
    having count(first.run_at) > 0;
$$;

-- Notes waiting jobs that are due before the mark of their queue. There are none, unless a row was written without
-- the trigger or the server's clock was set back by more than the margin. Returns how many marks were wrong.
create function check_low_water(queues text[]) returns bigint language sql
set jit = off set enable_seqscan = off set enable_bitmapscan = off set enable_sort = off
as $$
    with passed as (
        select mark.queue, mark.priority, first.run_at
        from queue_low_water mark, lateral (
            select run_at from apalis.jobs
            where job_type = mark.queue and priority = mark.priority
              and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
            order by run_at
            limit 1) first
        where mark.queue = any(queues) and first.run_at < low_water(mark.queue, mark.priority)
    ), noted as (
        insert into queue_due_earlier (queue, priority, at) select queue, priority, run_at from passed returning 1
    )
    select count(*) from noted;
$$;
