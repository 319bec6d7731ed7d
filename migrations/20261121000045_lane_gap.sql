-- What a lane knows to be missing. A lane that is completed and has gaps is completed with gaps.
create table lane_gap (
    id bigint primary key generated always as identity,
    lane_id uuid not null references lane (id) on delete cascade,
    -- second: a second that holds more events than the upstream gives; id: an event that it listed
    -- and did not deliver; span: a window whose answer was not proven to be complete.
    kind text not null check (kind in ('second', 'id', 'span')),
    -- The window, or the second, or the window in which the id was listed. Unix seconds, inclusive.
    since bigint not null,
    until bigint not null,
    event_id bytea check (octet_length(event_id) = 32),
    reason text not null check (length(reason) between 1 and 1000),
    first_seen_at timestamptz not null default now(),
    -- Retries that did not close the gap.
    attempts int not null default 0 check (attempts >= 0),
    retry_at timestamptz not null,
    check (since <= until),
    check (kind <> 'second' or since = until),
    check ((kind = 'id') = (event_id is not null))
);
create unique index lane_gap_window on lane_gap (lane_id, since, until) where event_id is null;
create unique index lane_gap_event on lane_gap (lane_id, event_id) where event_id is not null;
create index lane_gap_due on lane_gap (lane_id, retry_at);

-- The sums of a lane's gaps. Each transaction that changes its gaps counts them again.
alter table lane
    add column gap_seconds int not null default 0,
    add column gap_ids int not null default 0,
    add column gap_spans int not null default 0,
    -- When the oldest gap was found, and when the first gap is due for a retry.
    add column gaps_since timestamptz,
    add column gap_retry_at timestamptz;
