-- Ids that are known and not stored. Every row is forgotten at `retry_after`; rows without one, of an older
-- release, 30 days after `seen_at`.
alter table known_id
    -- What the event claims, so that the filter of a set applies to its id; null if unknown.
    add column kind int,
    add column pubkey bytea,
    -- The value that exceeded a limit: bytes of a `too-large` event, tags of a `too-many-tags` one. The row
    -- counts while the limit is below it.
    add column size int;

-- Ephemeral events are not remembered any more.
delete from known_id where reason = 'ephemeral';

-- Counters by kind: live events, and all rows of the store. A change appends its differences, so that no
-- two transactions wait for each other; `roll_up` in jobs/src/mirror/event/kinds.rs adds them to the
-- counters. The kind -1 marks that the events of an older release were counted.
create table kind_count (
    kind int primary key,
    live bigint not null,
    stored bigint not null
);
create table kind_change (
    kind int not null,
    live bigint not null,
    stored bigint not null
);

create function count_kinds() returns trigger language plpgsql as $$
begin
    case tg_op
        when 'INSERT' then
            insert into kind_change
            select kind, count(*) filter (where deleted_at is null), count(*) from new_rows group by kind;
        when 'UPDATE' then
            insert into kind_change
            select kind, sum(live), 0
            from (select kind, 1 as live from new_rows where deleted_at is null
                  union all select kind, -1 from old_rows where deleted_at is null) change
            group by kind having sum(live) <> 0;
        when 'DELETE' then
            insert into kind_change
            select kind, -count(*) filter (where deleted_at is null), -count(*) from old_rows group by kind;
        else
            delete from kind_count;
            delete from kind_change;
    end case;
    return null;
end $$;

create trigger count_inserted_kinds after insert on event
    referencing new table as new_rows for each statement execute function count_kinds();
create trigger count_updated_kinds after update on event
    referencing old table as old_rows new table as new_rows for each statement execute function count_kinds();
create trigger count_deleted_kinds after delete on event
    referencing old table as old_rows for each statement execute function count_kinds();
create trigger count_no_kinds after truncate on event
    for each statement execute function count_kinds();

-- An upstream that is being removed: a job deletes the rows that mention it, page by page, and then the
-- upstream. It is disabled and in no list, and its address is taken until it is gone.
alter table upstream
    add column removing_at timestamptz,
    add column removed_rows bigint not null default 0;
