-- The causes for which relays gave up, with the largest groups first. A walk of the index visits each cause once, up to
-- a number of causes; the causes of the relays that gave up last are added, so that a common one is found behind many
-- that are rare. Each count ends at a cap, so that the cost does not grow with the number of relays.
with recursive walked as (
    (select cause, 1 as place from relay where exhausted_at is not null order by cause limit 1)
    union all
    select (select relay.cause from relay
            where exhausted_at is not null and relay.cause > walked.cause order by relay.cause limit 1), place + 1
    from walked where walked.cause is not null and place < $2
), recent as (
    select cause from (select cause from relay where exhausted_at is not null
                       order by exhausted_at desc, id desc limit $4) last
    group by cause order by count(*) desc limit $2
), known as (
    select cause from walked union select cause from recent
), counted as materialized (
    select cause, (select count(*) from (
                       select from relay where exhausted_at is not null and relay.cause = known.cause limit $3
                   ) relays) as relays
    from known where cause is not null
), largest as materialized (
    select cause, relays from counted order by relays desc, cause limit $1
)
select largest.cause as "cause!",
       (select count(*) from (
            select from relay where exhausted_at is not null and relay.cause = largest.cause limit $4
        ) relays) as "relays!",
       first.exhausted_at as "since!", last.id as "latest_id!: RelayId", last.host as "latest_host!",
       last.sync_error as "latest_error!",
       ((select sum(relays) from counted) - (select sum(relays) from largest))::bigint as "others!"
from largest
cross join lateral (
    select exhausted_at from relay where exhausted_at is not null and relay.cause = largest.cause
    order by exhausted_at, id limit 1
) first
cross join lateral (
    select id, subdomain || '.' || zooid_domain as host, sync_error::text as sync_error
    from relay where exhausted_at is not null and relay.cause = largest.cause
    order by exhausted_at desc, id desc limit 1
) last
order by 2 desc, 3, 1
