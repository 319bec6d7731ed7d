-- Releases before the proof of windows could finish a window of which the upstream had shown a part
-- only. What they finished becomes one gap per lane: it is shown, and is retried part by part, the lanes
-- spread over a day.
insert into lane_gap (lane_id, kind, since, until, reason, retry_at)
select id, 'span', backfill_until, backfill_started_at,
       'finished by a release that did not prove its windows',
       now() + make_interval(mins => abs(hashtext(id::text) % 1440))
from lane
where lane in ('backfill', 'full') and backfill_until < backfill_started_at
on conflict do nothing;

update lane set gap_spans = sums.spans, gaps_since = sums.since, gap_retry_at = sums.retry_at
from (select lane_id, count(*) filter (where kind = 'span')::int as spans, min(first_seen_at) as since,
             min(retry_at) as retry_at
      from lane_gap group by lane_id) sums
where lane.id = sums.lane_id and lane.lane in ('backfill', 'full');
