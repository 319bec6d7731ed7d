-- The upstream that an event came from first is a number in the event's row. Rows of event_source are for the
-- other upstreams that hold the event.
-- A number is never used twice: an upstream that is forgotten gets another one, and is the source of nothing.
alter table upstream add column number int not null unique generated always as identity;
-- The upstream is known since first_seen_at to hold the event; null if it takes no events, or if event_source has it.
alter table event add column source int;

-- The release before writes this null only to forget an upstream, and knows no number. A later release drops the trigger.
create function renumber_forgotten() returns trigger language plpgsql as $$
begin
    new.number := nextval(pg_get_serial_sequence('upstream', 'number'));
    return new;
end $$;
create trigger renumber_forgotten before update of authors_only_at on upstream for each row
    when (new.authors_only_at is null and new.number = old.number)
    execute function renumber_forgotten();
