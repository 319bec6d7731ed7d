-- Bytes per event: of the JSON, and of each table and index of the store.
select 0 as place, 'JSON of the event' as name,
       avg(octet_length(tags::text) + octet_length(to_json(content)::text) + length(kind::text) + 328)::float8 as bytes
from event
union all
select case relkind when 'r' then 1 else 2 end, oid::regclass::text,
       (pg_relation_size(oid) + coalesce(pg_total_relation_size(nullif(reltoastrelid, 0)), 0)::float8)
       / (select count(*) from event)
from (select c.oid, c.relkind, c.reltoastrelid from pg_class c
      where c.oid in ('event'::regclass, 'event_head'::regclass, 'event_source'::regclass)
         or c.oid in (select indexrelid from pg_index
                      where indrelid in ('event'::regclass, 'event_head'::regclass, 'event_source'::regclass))) relation
union all
select 3, 'all of the store',
       sum(pg_total_relation_size(name::regclass))::float8 / (select count(*) from event)
from unnest(array['event', 'event_head', 'event_source']) name
order by place, bytes desc, name
