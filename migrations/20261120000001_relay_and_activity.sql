-- Relays (what a tenant wants) and their activity (what was asked and what came of it).

-- A column's own rule is a domain's: it is checked when the column is written. A check constraint of
-- the table would be checked, and first parsed, at every claim and settle too, which write none of
-- these columns; that was a tenth of all that a sync cost.
create domain relay_id as text
    check (value ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$');
create domain pubkey as text check (value ~ '^[0-9a-f]{64}$');
create domain subdomain as text check (value ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$');
create domain sqlite_name as text check (value ~ '^[a-z_][a-z0-9_]*$');
create domain relay_status as text check (value in ('active', 'inactive', 'delinquent'));
create domain failure_kind as text check (value in ('transient', 'permanent'));
create domain text_64 as text check (length(value) <= 64);
create domain text_200 as text check (length(value) <= 200);
create domain text_1000 as text check (length(value) <= 1000);
create domain text_2048 as text check (length(value) <= 2048);
create domain text_10000 as text check (length(value) <= 10000);

create table relay (
    id relay_id primary key,
    tenant_pubkey pubkey not null,
    subdomain subdomain not null,
    zooid_domain text not null,
    plan_id text_64 not null default '',
    status relay_status not null default 'active',
    -- The SQLite schema on zooid: made once, never changes, even when the subdomain does.
    schema sqlite_name not null constraint relay_schema_key unique,

    info_name text_200 not null default '',
    info_icon text_2048 not null default '',
    info_description text_10000 not null default '',
    policy_public_read boolean not null,
    policy_public_write boolean not null,
    policy_public_join boolean not null,
    policy_strip_signatures boolean not null,
    groups_enabled boolean not null,
    management_enabled boolean not null,
    members_can_invite boolean not null,
    blossom_enabled boolean not null,
    livekit_enabled boolean not null,
    push_enabled boolean not null,
    custom_domain text not null default '',
    custom_domain_verified boolean not null default false,

    -- Every mutation adds 1 to generation; a sync writes the generation that it carried to zooid.
    generation bigint not null default 1,
    synced_generation bigint not null default 0,
    synced boolean not null generated always as (generation = synced_generation) stored,
    sync_error text_1000 not null default '',
    failure_kind failure_kind,
    -- Failed attempts in a row at this generation: what the schedule continues from if the job is lost.
    attempts integer not null default 0,
    retry_at timestamptz,
    -- Gave up: the schedule is used up, or zooid refused for good.
    exhausted_at timestamptz,
    -- First completed sync; null means that the relay was never known to exist on zooid.
    provisioned_at timestamptz,

    -- The right to call zooid for this relay until a time; the epoch fences late writers.
    lease_owner text,
    lease_job text,
    lease_until timestamptz,
    lease_epoch bigint not null default 0,

    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),

    constraint relay_host_key unique (subdomain, zooid_domain),
    -- One constraint: each costs its parsing at every write of the row.
    constraint relay_is_consistent check (
        synced_generation between 0 and generation and attempts >= 0
        and (lease_owner is null) = (lease_until is null)
        and (lease_owner is null) = (lease_job is null)
        and (exhausted_at is null or failure_kind is not null)
        and (exhausted_at is null or retry_at is null)
        and (sync_error = '') = (failure_kind is null))
) with (fillfactor = 80); -- room for the two lease updates of a sync to stay on the page

-- Reconcile walks this; synced relays are not in it.
create index relay_pending_idx on relay (id) where not synced;
create index relay_newest_idx on relay (created_at desc, id desc);
create index relay_tenant_idx on relay (tenant_pubkey, created_at desc, id desc);

create table activity (
    id bigint generated always as identity primary key,
    created_at timestamptz not null default now(),
    tenant_pubkey text not null,
    activity_type text not null check (activity_type in (
        'create_relay', 'update_relay', 'activate_relay', 'deactivate_relay',
        'complete_relay_sync', 'fail_relay_sync')),
    resource_type text not null default 'relay' check (resource_type = 'relay'),
    -- No foreign key: the history outlives its relay.
    resource_id text not null,
    detail jsonb not null default '{}'
);

create index activity_resource_idx on activity (resource_id, id desc);
