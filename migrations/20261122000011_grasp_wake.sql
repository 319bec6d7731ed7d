-- Keys for which more events wait than one transaction releases. A job releases the rest, page by page, in the
-- order of the events' ids.
create table grasp_wake (
    upstream_id uuid not null references grasp_service (upstream_id) on delete cascade,
    key text not null check (octet_length(key) <= 1300),
    -- the events up to this id are released already
    after bytea not null,
    primary key (upstream_id, key)
);
