-- What explains a change in the charts: pauses, breakers, starts. For people; nothing decides by it.
create table chart_mark (
    id bigint generated always as identity primary key,
    at timestamptz not null default now() check (is_instant(at)),
    kind text not null check (kind in ('paused', 'resumed', 'breaker_opened', 'breaker_closed', 'started')),
    -- the queue, the instance, or the process
    subject text_2048 not null
);
create index chart_mark_at_idx on chart_mark (at, id);

create function mark_pause() returns trigger language plpgsql as $$
begin
    if tg_op = 'INSERT' then
        insert into chart_mark (kind, subject) values ('paused', left(new.queue, 2048));
    else
        insert into chart_mark (kind, subject) values ('resumed', left(old.queue, 2048));
    end if;
    return null;
end $$;
create trigger mark_pause after insert or delete on paused_queue for each row execute function mark_pause();

create function mark_breaker() returns trigger language plpgsql as $$
begin
    insert into chart_mark (kind, subject)
    values (case when new.opened_at is null then 'breaker_closed' else 'breaker_opened' end, new.name);
    return null;
end $$;
create trigger mark_breaker after update of opened_at on zooid_instance for each row
    when ((old.opened_at is null) <> (new.opened_at is null)) execute function mark_breaker();
