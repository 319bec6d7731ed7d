-- Event sync: upstreams, their lanes, and the events that are kept in step with them.
-- Instants of Nostr (an event's created_at, windows, cursors) are Unix seconds, as their protocol
-- has them; everything that we stamp is a timestamptz of this database's clock.

-- A relay elsewhere, or one that we host, that we read from or write to.
create table upstream (
    id uuid primary key default gen_random_uuid(),
    -- Normalised: two spellings cannot both exist.
    url text not null unique check (url ~ '^wss?://.' and length(url) <= 255),
    enabled boolean not null default true,
    backfill boolean not null default true,
    negentropy boolean not null default false,
    -- A standing subscription, and local changes pushed at once.
    live boolean not null default false,
    direction text not null default 'down' check (direction in ('down', 'up', 'both')),
    notes text check (length(notes) <= 2000),
    -- Overrides of the sync settings; checked on write.
    config jsonb not null default '{}' check (jsonb_typeof(config) = 'object'),
    -- The hosted relay that it is, if it is one.
    relay_id text unique references relay (id) on delete set null,
    -- What is known of its NIP-77; a verdict holds until its time.
    negentropy_verdict text not null default 'unknown'
        check (negentropy_verdict in ('unknown', 'supported', 'unsupported')),
    negentropy_verdict_until timestamptz,
    negentropy_reason text check (length(negentropy_reason) <= 1000),
    -- Its NIP-11 document, cut down to what is used.
    information jsonb,
    information_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now(),
    check ((negentropy_verdict = 'unknown') = (negentropy_verdict_until is null))
);

-- One independent stream of work for one upstream and filter. At most one job holds it: the owner.
create table lane (
    id uuid primary key default gen_random_uuid(),
    upstream_id uuid not null references upstream (id) on delete cascade,
    lane text not null check (lane in ('realtime', 'backfill', 'full', 'upload', 'live')),
    filter_hash text not null check (length(filter_hash) between 1 and 64),
    status text not null default 'idle' check (status in ('idle', 'syncing', 'completed', 'error')),
    -- Realtime: the relay was asked for everything before this second.
    cursor_at bigint,
    last_download_event_id bytea check (octet_length(last_download_event_id) = 32),
    last_upload_event_id bytea check (octet_length(last_upload_event_id) = 32),
    last_upload_at timestamptz,
    -- Upload: every event up to this position has a verdict for this upstream.
    upload_position bigint not null default 0,
    received bigint not null default 0 check (received >= 0),
    stored bigint not null default 0 check (stored >= 0),
    duplicate bigint not null default 0 check (duplicate >= 0),
    rejected bigint not null default 0 check (rejected >= 0),
    uploaded bigint not null default 0 check (uploaded >= 0),
    upload_duplicate bigint not null default 0 check (upload_duplicate >= 0),
    upload_rejected bigint not null default 0 check (upload_rejected >= 0),
    -- Ids that the relay listed and could not deliver.
    unavailable bigint not null default 0,
    -- What it sent and nobody asked for, and seconds that hold more events than its page.
    violations bigint not null default 0,
    saturated_seconds bigint not null default 0,
    -- Backfill: all of (backfill_until, backfill_started_at] is done; it only ever decreases, down
    -- to the target.
    backfill_started_at bigint,
    backfill_target bigint,
    backfill_until bigint,
    window_seconds bigint check (window_seconds > 0),
    -- Windows in a row that were cheap: three of them double its length.
    cheap_windows int not null default 0,
    method text check (method in ('polling', 'negentropy')),
    last_synced_at timestamptz,
    error_message text check (length(error_message) <= 1000),
    failed_at timestamptz,
    consecutive_failures int not null default 0,
    retry_at timestamptz,
    -- A job's id; of the lane `live`, a process's.
    lease_owner text,
    lease_epoch bigint not null default 0,
    heartbeat_at timestamptz,
    created_at timestamptz not null default now(),
    unique (upstream_id, filter_hash, lane),
    check ((status = 'error') = (error_message is not null and retry_at is not null)),
    check (status <> 'syncing' or (lease_owner is not null and heartbeat_at is not null)),
    check ((backfill_until is null) = (backfill_target is null)),
    check ((backfill_until is null) = (backfill_started_at is null)),
    check (backfill_until between backfill_target and backfill_started_at)
);
create index on lane (status);

-- The local store. An event's wire form is built from these columns; nothing of it is kept twice.
create table event (
    id bytea primary key check (octet_length(id) = 32),
    -- Local arrival order: what uploads walk.
    position bigint not null unique generated always as identity,
    pubkey bytea not null check (octet_length(pubkey) = 32),
    created_at bigint not null check (created_at >= 0),
    kind int not null check (kind between 0 and 65535),
    tags jsonb not null default '[]' check (jsonb_typeof(tags) = 'array'),
    content text not null default '',
    sig bytea not null check (octet_length(sig) = 64),
    -- The key's third part: set for replaceable (empty) and addressable kinds only.
    d_tag text check (octet_length(d_tag) <= 1024),
    expires_at bigint,
    deleted_at timestamptz,
    delete_reason text check (delete_reason in ('replaced', 'deleted', 'expired')),
    first_seen_at timestamptz not null default now(),
    check ((deleted_at is null) = (delete_reason is null))
);
-- The negentropy set of a window, read from the index alone.
create index event_set on event (created_at, id);
create index event_kind on event (kind, created_at);
create index event_author on event (pubkey, kind, created_at);
-- One live version of a key, whoever writes.
create unique index event_live_version on event (pubkey, kind, d_tag)
    where d_tag is not null and deleted_at is null;
create index event_expiring on event (expires_at) where expires_at is not null and deleted_at is null;
create index event_deleted on event (deleted_at) where deleted_at is not null;
create index event_arrived on event using brin (first_seen_at);

-- Single-letter tags, for filters.
create table event_tag (
    position bigint not null references event (position) on delete cascade,
    name text not null check (name ~ '^[a-zA-Z]$'),
    value text not null check (length(value) <= 255),
    index int not null check (index >= 0),
    primary key (position, index)
);
create index event_tag_value on event_tag (name, value, position);

-- The newest version of a replaceable or addressable key that was ever seen, deleted ones included:
-- what decides between versions, in whatever order they come.
create table event_head (
    pubkey bytea not null,
    kind int not null,
    d_tag text not null,
    created_at bigint not null,
    id bytea not null check (octet_length(id) = 32),
    primary key (pubkey, kind, d_tag)
);

-- The upstream is known to hold the event: nothing is sent back to where it came from.
create table event_source (
    event_id bytea not null check (octet_length(event_id) = 32),
    upstream_id uuid not null references upstream (id) on delete cascade,
    first_seen_at timestamptz not null default now(),
    primary key (event_id, upstream_id)
);

-- Ids that were received and not stored. Without an upstream only if id and signature were verified:
-- a forgery must never keep a genuine copy from another relay out.
create table known_id (
    event_id bytea not null check (octet_length(event_id) = 32),
    upstream_id uuid references upstream (id) on delete cascade,
    created_at bigint not null,
    reason text not null,
    retry_after timestamptz,
    seen_at timestamptz not null default now()
);
create unique index known_id_verified on known_id (event_id) where upstream_id is null;
create unique index known_id_of_upstream on known_id (event_id, upstream_id) where upstream_id is not null;
create index known_id_set on known_id (created_at, event_id);

-- What kind-5 events delete, present or not: consulted on every insert.
create table deletion_mark (
    target bytea not null check (octet_length(target) = 32),
    author bytea not null,
    primary key (target, author)
);
create table deletion_address (
    author bytea not null,
    kind int not null,
    d_tag text not null,
    up_to bigint not null,
    primary key (author, kind, d_tag)
);

-- Uploads that were refused for good, or are to be tried again. Accepted ones need no row.
create table upload_verdict (
    upstream_id uuid not null references upstream (id) on delete cascade,
    event_id bytea not null check (octet_length(event_id) = 32),
    verdict text not null check (verdict in ('pending', 'rejected')),
    message text not null default '' check (length(message) <= 1000),
    attempts int not null default 0,
    next_try timestamptz,
    updated_at timestamptz not null default now(),
    primary key (upstream_id, event_id),
    check ((verdict = 'pending') = (next_try is not null))
);
create index upload_pending on upload_verdict (upstream_id, next_try) where verdict = 'pending';

-- Why an upstream's events were not stored.
create table rejection (
    upstream_id uuid not null references upstream (id) on delete cascade,
    reason text not null,
    events bigint not null,
    last_at timestamptz not null default now(),
    primary key (upstream_id, reason)
);

-- Events per minute, for charts.
create table ingest_minute (
    minute timestamptz primary key,
    stored bigint not null default 0,
    duplicate bigint not null default 0,
    rejected bigint not null default 0
);

-- Keys of the REST API; the token itself is shown once and kept nowhere.
create table api_key (
    id uuid primary key default gen_random_uuid(),
    name text not null check (length(name) between 1 and 200),
    digest bytea not null unique check (octet_length(digest) = 32),
    prefix text not null check (length(prefix) = 8),
    last_used_at timestamptz,
    revoked_at timestamptz,
    created_at timestamptz not null default now(),
    updated_at timestamptz not null default now()
);

-- What this process may know of a connection elsewhere: shown by commands and pages of any process.
create table upstream_connection (
    upstream_id uuid not null references upstream (id) on delete cascade,
    process text not null,
    state text not null check (state in ('connecting', 'open', 'waiting', 'closed')),
    subscriptions int not null default 0,
    attempts int not null default 0,
    bytes_in bigint not null default 0,
    bytes_out bigint not null default 0,
    error text check (length(error) <= 1000),
    updated_at timestamptz not null default now(),
    primary key (upstream_id, process)
);
