-- Of each key, the newest version is live, and is the head.
with ranked as (
    select id, row_number() over (partition by pubkey, kind, d_tag order by created_at desc, id) as number
    from event where d_tag is not null)
update event set deleted_at = now(), delete_reason = 'replaced' from ranked where ranked.id = event.id and number > 1;
insert into event_head (pubkey, kind, d_tag, created_at, id)
select pubkey, kind, d_tag, created_at, id from event where d_tag is not null and deleted_at is null;
create unique index event_live_version on event (pubkey, kind, d_tag) where d_tag is not null and deleted_at is null;
vacuum analyze event;
vacuum analyze event_head;
