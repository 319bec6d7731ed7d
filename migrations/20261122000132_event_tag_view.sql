-- The rows of event_tag follow from the events. The processes of the release before this one read them, slowly if
-- they search for a value, and insert them, which does nothing.
-- Both tables are locked in the order of transactions that store: a foreign key connects them.
lock table event in access exclusive mode;
drop table event_tag;
create view event_tag as
    select e.position, tag.name, tag.value, tag.index from event e cross join lateral indexed_tags(e.tags) tag;
create function keep_no_tag() returns trigger language plpgsql as $$
begin
    return null;
end $$;
create trigger keep_no_tag instead of insert on event_tag for each row execute function keep_no_tag();
