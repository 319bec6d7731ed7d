-- A week of counts with days and nights, and a pause an hour long.
insert into sync_minute (minute, synced, failed, gave_up, latency, latencies)
select date_trunc('minute', now()) - make_interval(mins => i), 40 + 30 * sin(i / 229.0), i % 7 / 6, 0, '{}',
       array_fill(0::bigint, array[150]) || array[20, 15, 4, 0, 0, 1]::bigint[]
from generate_series(2, 10079) i where i not between 300 and 360;
insert into ingest_minute (minute, stored, rejected)
select date_trunc('minute', now()) - make_interval(mins => i), 900 + 800 * cos(i / 229.0), 3
from generate_series(2, 10079) i on conflict do nothing;
insert into chart_mark (at, kind, subject)
values (now() - interval '6 h', 'paused', 'sync-relay'), (now() - interval '5 h', 'resumed', 'sync-relay'),
       (now() - interval '30 min', 'breaker_opened', 'http://zooid.test'),
       (now() - interval '28 min', 'breaker_closed', 'http://zooid.test');
