-- The items that followed relays have not delivered, with the next attempt, which needs the relay too. It is null
-- while an item is in flight, and if no attempt is due at any time.
create view grasp_missing as
select c.relay_id, r.url, c.family, c.item, c.state, c.attempts, c.reason, c.wanted_at,
       case when c.state = 'missing' and isfinite(c.retry_at) then
           -- a relay that refuses one request after the other is asked again at its probe
           greatest(c.retry_at, r.limited_until, case when c.refused then r.probe_at else r.first_probe_at end,
                    case when r.lease_until > now() then null else r.next_attempt_at end)
       end as retry_at,
       -- of the relay's NIP-11 document: whether a request can name the item
       u.information->'max_message_length' as max_message_length
from grasp_coverage c
join grasp_relay r on r.id = c.relay_id
left join upstream u on u.id = r.upstream_id
where c.state <> 'confirmed';
