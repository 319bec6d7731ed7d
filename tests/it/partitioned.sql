-- The first step towards a store of a billion events (ADR 29): `event` in partitions by time. An id is the hash of an
-- event with its time, so the key (created_at, id) is as unique as the id. That only one version of a key is live
-- follows from `event_head`, whose rows are locked by every writer; an index cannot say it across partitions.
alter table event rename to event_whole;
alter table event_whole rename constraint event_pkey to event_whole_pkey;
create temp table kept as
    select pg_get_functiondef('events_tagged'::regproc) as tagged, pg_get_viewdef('event_tag'::regclass) as tags;
update kept set tagged = replace(tagged, 'event_whole', 'event'), tags = replace(tags, 'event_whole', 'event');
drop view event_tag;
drop function events_tagged;

create table event (
    like event_whole including defaults including constraints including storage including compression,
    constraint event_pkey primary key (created_at, id)
) partition by range (created_at);
create sequence event_arrival owned by event.position;
alter table event alter position set default nextval('event_arrival');
-- Twenty days of the mix of `benches/bytes/mix.sql`, and all other times.
create table event_rest partition of event default;
do $$ begin
    for day in 0 .. 19 loop
        execute format('create table event_%s partition of event for values from (%s) to (%s)', day,
                       1700000000 + day * 86400, 1700000000 + (day + 1) * 86400);
    end loop;
end $$;
create index event_by_id on event (id);
create index event_by_position on event (position);
create index event_by_author on event (pubkey, kind);
create index event_by_kind on event (kind);
create index event_live on event (pubkey, kind, d_tag) where d_tag is not null and deleted_at is null;
create index event_expires on event (expires_at) where expires_at is not null and deleted_at is null;
create index event_gone on event (deleted_at) where deleted_at is not null;
create index event_tags on event using gin (tag_keys(plain_tags(tags))) with (fastupdate = off);
create trigger count_inserted_kinds after insert on event referencing new table as new_rows
    for each statement execute function count_kinds();
create trigger count_updated_kinds after update on event referencing old table as old_rows new table as new_rows
    for each statement execute function count_kinds();
create trigger count_deleted_kinds after delete on event referencing old table as old_rows
    for each statement execute function count_kinds();
create trigger count_no_kinds after truncate on event for each statement execute function count_kinds();
drop table event_whole;
do $$ begin
    execute (select tagged from kept);
    execute 'create view event_tag as ' || (select tags from kept);
end $$;
create trigger keep_no_tag instead of insert on event_tag for each row execute function keep_no_tag();
drop table kept;
analyze;
