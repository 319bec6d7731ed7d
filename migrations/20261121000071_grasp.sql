-- GRASP: relays of ours that host git repositories, the relays that their announcements name, and how
-- much of what they should hold has been fetched. docs/GRASP.md explains the words.

-- A relay of ours that hosts repositories. Its upstream carries its own feed and the uploads to it.
create table grasp_service (
    upstream_id uuid primary key references upstream (id),
    -- hosts, lower case, with a port unless it is the scheme's, by which announcements mean this service
    names text[] not null check (cardinality(names) between 1 and 20),
    enabled boolean not null default true,
    -- rules of admission; see jobs/src/grasp/policy.rs
    policy jsonb not null default '{}' check (jsonb_typeof(policy) = 'object'),
    -- grows with each change of names or policy; what was refused under an earlier one is judged again
    policy_rev bigint not null default 1,
    max_relays_per_announcement int not null default 20 check (max_relays_per_announcement between 1 and 100),
    max_relays int not null default 1000 check (max_relays between 1 and 10000),
    -- relays that announcements name beyond `max_relays`, kept by triggers
    relays_over_limit int not null default 0,
    -- the store has been judged up to this event.position under policy_rev = scan_rev
    scan_position bigint not null default 0,
    scan_rev bigint not null default 0,
    removing_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- An event that a service accepted. Only these are uploaded to its relay.
create table admission (
    upstream_id uuid not null references grasp_service (upstream_id),
    event_id bytea not null check (octet_length(event_id) = 32),
    -- the rule that admitted the event; see docs/GRASP.md
    rule text not null,
    -- the repository through which it was admitted; null if there is none, as for a user's grasp list
    address text,
    -- how it came: own, live, fresh, reconnect, daily, missing, rotation, store, released
    source text not null,
    -- the followed relay that delivered it; null if there is none
    relay_id uuid,
    accepted_at timestamptz not null default now(),
    primary key (upstream_id, event_id)
);
create index admission_event_idx on admission (event_id);
create index admission_address_idx on admission (upstream_id, address, accepted_at);

-- An event that a service refused for now, or for good if it waits for nothing.
create table parked (
    upstream_id uuid not null references grasp_service (upstream_id),
    event_id bytea not null check (octet_length(event_id) = 32),
    kind int not null,
    pubkey bytea not null,
    created_at bigint not null,
    -- code: names-another-service, not-a-maintainer, orphan, bad-identifier, blocked-author, …
    reason text not null,
    -- for people
    detail text not null check (length(detail) <= 500),
    -- the event as JSON; null if it is too large to keep: then it is fetched again when it is released
    body text check (octet_length(body) <= 65536),
    policy_rev bigint not null,
    relay_id uuid,
    parked_at timestamptz not null default now(),
    expires_at timestamptz not null,
    primary key (upstream_id, event_id)
);
create index parked_expires_idx on parked (expires_at);
create index parked_event_idx on parked (event_id);
create index parked_reason_idx on parked (upstream_id, reason, parked_at);

-- What a parked event waits for: `e:<id>` or `a:<address>` accepted, `m:<public key>:<identifier>` an
-- announcement of the identifier that lists the author, `i:<id>` or `i:<address>` an accepted event that
-- points to it.
create table parked_key (
    upstream_id uuid not null,
    key text not null check (octet_length(key) <= 1300),
    event_id bytea not null,
    primary key (upstream_id, key, event_id),
    foreign key (upstream_id, event_id) references parked (upstream_id, event_id) on delete cascade
);
create index parked_key_event_idx on parked_key (upstream_id, event_id);

-- Events that are judged again because something that they wait for was accepted.
create table grasp_release (
    upstream_id uuid not null references grasp_service (upstream_id) on delete cascade,
    event_id bytea not null,
    primary key (upstream_id, event_id)
);

-- Wanted: a repository of a service.
create table grasp_repo (
    upstream_id uuid not null references grasp_service (upstream_id),
    -- 30617:<pubkey>:<identifier>
    address text not null check (octet_length(address) <= 1200),
    pubkey bytea not null check (octet_length(pubkey) = 32),
    identifier text not null,
    -- the newest announcement that was seen, also one that leaves the service
    announcement_id bytea not null,
    announced_at bigint not null,
    name text,
    -- the author's co-maintainers, as the newest accepted announcement lists them
    maintainers bytea[] not null default '{}',
    -- true: the announcement does not name the service; another accepted one of the identifier lists its
    -- author as a maintainer
    by_maintainer boolean not null default false,
    -- relays that the announcement names beyond the limit per announcement, and beyond the service's limit
    relays_cut int not null default 0,
    relays_over int not null default 0,
    -- since when the newest announcement does not name the service any more: then nothing is followed
    left_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    primary key (upstream_id, address)
);
create index grasp_repo_identifier_idx on grasp_repo (identifier);
-- repositories with relays that wait for room
create index grasp_repo_over_idx on grasp_repo (upstream_id, updated_at) where relays_over > 0;

create function grasp_count_over() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        update grasp_service s set relays_over_limit = s.relays_over_limit + changed.over
        from (select upstream_id, sum(relays_over)::int as over from new_rows group by 1) changed
        where s.upstream_id = changed.upstream_id and changed.over <> 0;
    elsif tg_op = 'DELETE' then
        update grasp_service s set relays_over_limit = s.relays_over_limit - changed.over
        from (select upstream_id, sum(relays_over)::int as over from old_rows group by 1) changed
        where s.upstream_id = changed.upstream_id and changed.over <> 0;
    else
        update grasp_service s set relays_over_limit = s.relays_over_limit + changed.over
        from (select upstream_id, sum(n)::int as over from (
                  select upstream_id, relays_over as n from new_rows
                  union all select upstream_id, -relays_over from old_rows) both_rows group by 1) changed
        where s.upstream_id = changed.upstream_id and changed.over <> 0;
    end if;
    return null;
end $$;
create trigger count_inserted_over after insert on grasp_repo
    referencing new table as new_rows for each statement execute function grasp_count_over();
create trigger count_deleted_over after delete on grasp_repo
    referencing old table as old_rows for each statement execute function grasp_count_over();
create trigger count_updated_over after update on grasp_repo
    referencing old table as old_rows new table as new_rows for each statement execute function grasp_count_over();

-- Wanted: the relays that a repository's announcement names, without the service's own.
create table grasp_repo_relay (
    upstream_id uuid not null,
    address text not null,
    url text not null,
    primary key (upstream_id, address, url),
    foreign key (upstream_id, address) references grasp_repo (upstream_id, address) on delete cascade
);
create index grasp_repo_relay_url_idx on grasp_repo_relay (url);
create index grasp_repo_relay_service_idx on grasp_repo_relay (upstream_id, url);

-- Wanted: the issues, patches and pull requests of a repository.
create table grasp_root (
    upstream_id uuid not null,
    address text not null,
    event_id bytea not null check (octet_length(event_id) = 32),
    kind int not null,
    primary key (upstream_id, address, event_id),
    foreign key (upstream_id, address) references grasp_repo (upstream_id, address) on delete cascade
);
create index grasp_root_event_idx on grasp_root (event_id);

-- Wanted: the authors of a repository's accepted events, whose deletions are asked for.
create table grasp_author (
    upstream_id uuid not null,
    address text not null,
    pubkey bytea not null check (octet_length(pubkey) = 32),
    primary key (upstream_id, address, pubkey),
    foreign key (upstream_id, address) references grasp_repo (upstream_id, address) on delete cascade
);
create index grasp_author_pubkey_idx on grasp_author (pubkey);

-- A relay that is followed because repositories name it, or because a service starts from it.
create table grasp_relay (
    id uuid primary key default gen_random_uuid(),
    url text not null unique check (url ~ '^wss?://.' and length(url) <= 255),
    -- the connection's row; null until the relay was claimed for the first time
    upstream_id uuid references upstream (id) on delete set null,
    status text not null default 'waiting' check (status in ('waiting', 'connecting', 'catching_up', 'in_step')),
    status_at timestamptz not null default now(),
    -- consecutive failures; they end when a connection lasts for 300 s or completes a batch
    failures int not null default 0,
    failing_since timestamptz,
    last_error text check (length(last_error) <= 1000),
    last_error_at timestamptz,
    -- a permanent fault: dns, tls, protocol, private
    fault text,
    fault_since timestamptz,
    next_attempt_at timestamptz not null default now(),
    connected_at timestamptz,
    -- every event up to here was offered to us, as far as the relay's answers prove it
    last_good_at timestamptz,
    -- no new subscriptions until then, because the relay limits our rate
    limited_until timestamptz,
    limits int not null default 0,
    lease_owner text,
    lease_until timestamptz,
    lease_epoch bigint not null default 0,
    -- since when no repository names the relay and no service starts from it
    unwanted_since timestamptz,
    -- when its coverage was last compared with all wanted; null: it must be compared
    reconciled_at timestamptz,
    -- the daily verification of everything confirmed
    resync_due_at timestamptz,
    resynced_at timestamptz,
    -- events that a verification found although the live subscriptions had missed them
    drift_last bigint not null default 0,
    drift_total bigint not null default 0,
    -- open subscriptions, and filters beyond the limit, which are polled in turn
    subscriptions int not null default 0,
    overflow int not null default 0,
    received bigint not null default 0,
    stored bigint not null default 0,
    attempts bigint not null default 0,
    connects bigint not null default 0,
    created_at timestamptz not null default now(),
    check ((failures = 0) = (failing_since is null)),
    check ((fault is null) = (fault_since is null)),
    check ((lease_owner is null) = (lease_until is null)),
    check (status = 'waiting' or lease_owner is not null)
);
create index grasp_relay_claim_idx on grasp_relay (next_attempt_at);
create index grasp_relay_owner_idx on grasp_relay (lease_owner);
create index grasp_relay_upstream_idx on grasp_relay (upstream_id);
create index grasp_relay_reconciled_idx on grasp_relay (reconciled_at nulls first);

-- Relays that a service starts from. They are followed even if no repository names them.
create table grasp_bootstrap (
    upstream_id uuid not null references grasp_service (upstream_id),
    url text not null check (url ~ '^wss?://.' and length(url) <= 255),
    primary key (upstream_id, url)
);
create index grasp_bootstrap_url_idx on grasp_bootstrap (url);

-- What is fetched together: up to 100 items of one family of one relay.
create table grasp_batch (
    id bigint generated always as identity primary key,
    relay_id uuid not null references grasp_relay (id) on delete cascade,
    epoch bigint not null,
    family text not null,
    -- why: missing, fresh, reconnect, daily, rotation
    purpose text not null,
    items int not null,
    -- how: pages, negentropy
    method text,
    status text not null default 'open' check (status in ('open', 'done', 'failed')),
    reason text check (length(reason) <= 1000),
    pages int not null default 0,
    received bigint not null default 0,
    stored bigint not null default 0,
    begun_at timestamptz not null default now(),
    ended_at timestamptz,
    check ((status = 'open') = (ended_at is null))
);
create index grasp_batch_relay_idx on grasp_batch (relay_id, begun_at desc);
create index grasp_batch_ended_idx on grasp_batch (ended_at);

-- How far a followed relay has delivered the history of an item. A row exists if and only if the item is
-- wanted from the relay. Families: announcements (item `*`), state (identifier), address (address),
-- root (event id, hex), deletion (public key, hex).
create table grasp_coverage (
    relay_id uuid not null references grasp_relay (id) on delete cascade,
    family text not null check (family in ('announcements', 'state', 'address', 'root', 'deletion')),
    item text not null check (octet_length(item) <= 1200),
    state text not null default 'missing' check (state in ('missing', 'in_flight', 'confirmed')),
    -- the batch that fetches the item
    batch bigint,
    -- failed attempts since the item was last confirmed, why the last one failed, and when the next is due
    attempts int not null default 0,
    reason text check (length(reason) <= 1000),
    retry_at timestamptz not null default now(),
    wanted_at timestamptz not null default now(),
    confirmed_at timestamptz,
    primary key (relay_id, family, item),
    check ((state = 'in_flight') = (batch is not null)),
    check (state <> 'confirmed' or confirmed_at is not null)
);
create index grasp_coverage_missing_idx on grasp_coverage (relay_id, family, retry_at) where state = 'missing';
create index grasp_coverage_batch_idx on grasp_coverage (batch) where batch is not null;
create index grasp_coverage_item_idx on grasp_coverage (family, item);

-- Whether a repository or a service wants an item from the relay with this URL. In plpgsql, because a
-- session then plans each of its queries once.
create function grasp_wants(relay text, asked_family text, asked_item text) returns boolean
    language plpgsql stable as $$
begin
    case asked_family
    when 'announcements' then
        return exists (
                select from grasp_service s
                cross join lateral (
                    select from grasp_repo_relay w join grasp_repo r using (upstream_id, address)
                    where w.upstream_id = s.upstream_id and w.url = relay and r.left_at is null limit 1) named
                where s.enabled and s.removing_at is null)
            or exists (
                select from grasp_bootstrap b join grasp_service s using (upstream_id)
                where b.url = relay and s.enabled and s.removing_at is null);
    when 'state' then
        return exists (
            select from grasp_repo r join grasp_service s using (upstream_id)
                join grasp_repo_relay w using (upstream_id, address)
            where r.identifier = asked_item and w.url = relay
              and s.enabled and s.removing_at is null and r.left_at is null);
    when 'address' then
        return exists (
            select from grasp_service s join grasp_repo r using (upstream_id)
                join grasp_repo_relay w using (upstream_id, address)
            where r.address = asked_item and w.url = relay
              and s.enabled and s.removing_at is null and r.left_at is null);
    when 'root' then
        return exists (
            select from grasp_root o join grasp_repo r using (upstream_id, address)
                join grasp_service s using (upstream_id) join grasp_repo_relay w using (upstream_id, address)
            where o.event_id = decode(asked_item, 'hex') and w.url = relay
              and s.enabled and s.removing_at is null and r.left_at is null);
    when 'deletion' then
        return exists (
            select from grasp_author a join grasp_repo r using (upstream_id, address)
                join grasp_service s using (upstream_id) join grasp_repo_relay w using (upstream_id, address)
            where a.pubkey = decode(asked_item, 'hex') and w.url = relay
              and s.enabled and s.removing_at is null and r.left_at is null);
    end case;
end $$;

-- The next items of a plan: those with the fewest failed attempts, in the order of their names.
create index grasp_coverage_plan_idx on grasp_coverage (relay_id, family, attempts, item) where state = 'missing';
-- what is forgotten after a day
create index grasp_batch_verified_idx on grasp_batch (ended_at) where purpose <> 'missing' and status = 'done';
create index grasp_batch_open_idx on grasp_batch (relay_id, begun_at) where status = 'open';
-- the oldest item of a relay that is not confirmed
create index grasp_coverage_wanted_idx on grasp_coverage (relay_id, wanted_at) where state <> 'confirmed';

-- The number of items by relay, family and state, kept by triggers.
create table grasp_coverage_count (
    relay_id uuid not null references grasp_relay (id) on delete cascade,
    family text not null,
    state text not null,
    items bigint not null,
    primary key (relay_id, family, state)
);

create function grasp_count_coverage() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into grasp_coverage_count as c (relay_id, family, state, items)
        select relay_id, family, state, count(*) from new_rows group by 1, 2, 3 order by 1, 2, 3
        on conflict (relay_id, family, state) do update set items = c.items + excluded.items;
    elsif tg_op = 'DELETE' then
        update grasp_coverage_count c set items = c.items - gone.items
        from (select relay_id, family, state, count(*) as items from old_rows group by 1, 2, 3 order by 1, 2, 3) gone
        where (c.relay_id, c.family, c.state) = (gone.relay_id, gone.family, gone.state);
    else
        insert into grasp_coverage_count as c (relay_id, family, state, items)
        select relay_id, family, state, sum(n) from (
            select relay_id, family, state, 1 as n from new_rows
            union all select relay_id, family, state, -1 from old_rows) changed
        group by 1, 2, 3 having sum(n) <> 0 order by 1, 2, 3
        on conflict (relay_id, family, state) do update set items = c.items + excluded.items;
    end if;
    return null;
end $$;
create trigger count_inserted_coverage after insert on grasp_coverage
    referencing new table as new_rows for each statement execute function grasp_count_coverage();
create trigger count_deleted_coverage after delete on grasp_coverage
    referencing old table as old_rows for each statement execute function grasp_count_coverage();
create trigger count_updated_coverage after update on grasp_coverage
    referencing old table as old_rows new table as new_rows for each statement execute function grasp_count_coverage();

-- Outbox: relays whose coverage gained missing items; planned when due.
create table grasp_outbox (
    relay_id uuid primary key references grasp_relay (id) on delete cascade,
    due_at timestamptz not null
);
create index grasp_outbox_due_idx on grasp_outbox (due_at);

-- Parts of a relay's history that it did not show: a second with more events than it gives.
create table grasp_gap (
    relay_id uuid not null references grasp_relay (id) on delete cascade,
    family text not null,
    -- the first item of the filter, and the number of its items
    item text not null,
    items int not null,
    since bigint not null,
    until bigint not null,
    reason text not null check (length(reason) <= 1000),
    first_seen_at timestamptz not null default now(),
    seen_at timestamptz not null default now(),
    primary key (relay_id, family, item, since, until)
);

-- Live processes of the wing, which share the followed relays.
create table grasp_process (
    process text primary key,
    seen_at timestamptz not null default now()
);

-- The relay of a service stays an upstream for as long as the service exists.
create function grasp_keeps_upstream() returns trigger language plpgsql as $$
begin
    if exists (select from grasp_service where upstream_id = new.id) then
        raise exception 'the upstream is the relay of a GRASP service'
            using errcode = 'restrict_violation', hint = 'remove the service first: tender grasp remove';
    end if;
    return new;
end $$;
create trigger grasp_keeps_upstream before update of removing_at on upstream
    for each row when (new.removing_at is not null and old.removing_at is null)
    execute function grasp_keeps_upstream();
