-- Relays (what a tenant wants) and their activity (what was asked and what came of it).

create table relay (
    id text primary key
        check (id ~ '^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$'),
    tenant_pubkey text not null check (tenant_pubkey ~ '^[0-9a-f]{64}$'),
    subdomain text not null check (subdomain ~ '^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$'),
    zooid_domain text not null check (zooid_domain <> ''),
    plan_id text not null default '' check (length(plan_id) <= 64),
    status text not null default 'active' check (status in ('active', 'inactive', 'delinquent')),
    -- The SQLite schema on zooid: made once, never changes, even when the subdomain does.
    schema text not null constraint relay_schema_key unique check (schema ~ '^[a-z_][a-z0-9_]*$'),

    info_name text not null default '' check (length(info_name) <= 200),
    info_icon text not null default '' check (length(info_icon) <= 2048),
    info_description text not null default '' check (length(info_description) <= 10000),
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
    generation bigint not null default 1 check (generation >= 1),
    synced_generation bigint not null default 0
        check (synced_generation >= 0 and synced_generation <= generation),
    synced boolean not null generated always as (generation = synced_generation) stored,
    sync_error text not null default '' check (length(sync_error) <= 1000),
    failure_kind text check (failure_kind in ('transient', 'permanent')),
    -- Failed attempts in a row at this generation: what the schedule continues from if the job is lost.
    attempts integer not null default 0 check (attempts >= 0),
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
    check ((lease_owner is null) = (lease_until is null)),
    check ((lease_owner is null) = (lease_job is null)),
    check (exhausted_at is null or failure_kind is not null),
    check (exhausted_at is null or retry_at is null),
    check ((sync_error = '') = (failure_kind is null))
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
