-- Facts about an upstream that windows have shown. Each holds until the upstream contradicts it, its
-- address changes, or its progress is reset.
alter table upstream
    -- The largest page that was evidently cut: older events followed it.
    add column page_cap bigint check (page_cap > 0),
    add column page_cap_at timestamptz,
    -- The largest set of a reconciliation that was evidently cut.
    add column negentropy_cap bigint check (negentropy_cap > 0),
    add column negentropy_cap_at timestamptz,
    -- Since when `until` is known to exclude its second.
    add column exclusive_until_at timestamptz;

-- A window that a realtime lane has begun: it is walked from its end to its beginning, and
-- everything after `walk_at` is stored. The next job continues there.
alter table lane
    add column walk_since bigint,
    add column walk_until bigint,
    add column walk_at bigint,
    -- The lane's cursor once the window is finished.
    add column walk_cursor bigint;
