-- What people see of the GRASP wing: counters that outlive the rows that they count, and names for what
-- several statements ask.

-- Decisions on events, counted when they are made: accepted by source, parked by reason. All of them are
-- made under the lock of admission, so these rows are not contended.
create table grasp_decision (
    upstream_id uuid not null references grasp_service (upstream_id) on delete cascade,
    outcome text not null check (outcome in ('accepted', 'parked')),
    -- the source of an accepted event; the reason for a parked one
    name text not null,
    events bigint not null,
    primary key (upstream_id, outcome, name)
);

-- Accepted events that a followed relay delivered, for each of the last 60 minutes: a ring of 60 slots.
create table grasp_relay_minute (
    relay_id uuid not null,
    slot smallint not null check (slot between 0 and 59),
    minute timestamptz not null,
    live int not null,
    history int not null,
    primary key (relay_id, slot)
);

-- Ended batches, counted when they end.
create table grasp_batch_count (
    relay_id uuid not null references grasp_relay (id) on delete cascade,
    purpose text not null,
    -- pages, negentropy; empty if the batch ended before it began to fetch
    method text not null,
    outcome text not null,
    batches bigint not null,
    -- pages, or rounds of negentropy
    pages bigint not null,
    received bigint not null,
    stored bigint not null,
    primary key (relay_id, purpose, method, outcome)
);

create function grasp_count_accepted() returns trigger language plpgsql as $$
begin
    insert into grasp_decision as d (upstream_id, outcome, name, events)
    select upstream_id, 'accepted', source, count(*) from new_rows group by 1, 3 order by 1, 3
    on conflict (upstream_id, outcome, name) do update set events = d.events + excluded.events;
    insert into grasp_relay_minute as m (relay_id, slot, minute, live, history)
    select relay_id, extract(minute from now())::smallint, date_trunc('minute', now()),
           count(distinct event_id) filter (where source = 'live'),
           count(distinct event_id) filter (where source <> 'live')
    from new_rows where relay_id is not null group by 1 order by 1
    on conflict (relay_id, slot) do update set minute = excluded.minute,
        live = excluded.live + case when m.minute = excluded.minute then m.live else 0 end,
        history = excluded.history + case when m.minute = excluded.minute then m.history else 0 end;
    return null;
end $$;
create trigger count_accepted after insert on admission
    referencing new table as new_rows for each statement execute function grasp_count_accepted();

create function grasp_count_parked() returns trigger language plpgsql as $$
begin
    insert into grasp_decision as d (upstream_id, outcome, name, events)
    select upstream_id, 'parked', reason, count(*) from new_rows group by 1, 3 order by 1, 3
    on conflict (upstream_id, outcome, name) do update set events = d.events + excluded.events;
    return null;
end $$;
create trigger count_parked after insert on parked
    referencing new table as new_rows for each statement execute function grasp_count_parked();

create function grasp_count_batches() returns trigger language plpgsql as $$
begin
    insert into grasp_batch_count as c (relay_id, purpose, method, outcome, batches, pages, received, stored)
    select n.relay_id, n.purpose, coalesce(n.method, ''), n.status, count(*), sum(n.pages), sum(n.received), sum(n.stored)
    from new_rows n join old_rows o on o.id = n.id
    where o.status = 'open' and n.status <> 'open' group by 1, 2, 3, 4 order by 1, 2, 3, 4
    on conflict (relay_id, purpose, method, outcome) do update set
        batches = c.batches + excluded.batches, pages = c.pages + excluded.pages,
        received = c.received + excluded.received, stored = c.stored + excluded.stored;
    return null;
end $$;
create trigger count_batches after update on grasp_batch
    referencing old table as old_rows new table as new_rows for each statement execute function grasp_count_batches();

create function grasp_forget_minutes() returns trigger language plpgsql as $$
begin
    delete from grasp_relay_minute m using old_rows o where m.relay_id = o.id;
    return null;
end $$;
create trigger forget_minutes after delete on grasp_relay
    referencing old table as old_rows for each statement execute function grasp_forget_minutes();

-- How a followed relay is, for people: its status, and what lies over it.
create function grasp_relay_state(r grasp_relay) returns text language sql stable as $$
    select case
        when r.unwanted_since is not null then 'unwanted'
        when r.limited_until > now() then 'limited'
        -- live and verified, but something that is wanted has not been delivered
        when r.lease_until > now() and r.status = 'in_step'
             and exists (select from grasp_coverage_count c
                         where c.relay_id = r.id and c.state <> 'confirmed' and c.items > 0) then 'catching_up'
        when r.lease_until > now() and r.status in ('in_step', 'catching_up') then r.status
        when r.fault is not null then 'fault'
        when r.failing_since <= now() - interval '24 hours' then 'dead'
        when r.lease_until > now() and r.status = 'connecting' then 'connecting'
        -- due for a minute, and no process has claimed it
        when r.next_attempt_at < now() - interval '60 seconds' then 'no_room'
        else 'waiting' end
$$;

-- The items that a repository asks of each relay that its announcement names.
create view grasp_repo_item as
    select upstream_id, address, 'state' as family, identifier as item from grasp_repo
    union all select upstream_id, address, 'address', address from grasp_repo
    union all select upstream_id, address, 'root', encode(event_id, 'hex') from grasp_root
    union all select upstream_id, address, 'deletion', encode(pubkey, 'hex') from grasp_author;
