//! Conflicts: zooid refuses a host that another of its relays has. If that relay is ours and about to
//! move, the conflict passes; if both wait for each other's host, one of them has to move away first.

use sqlx::PgExecutor;

use super::relay::{Relay, RelayId};

/// A relay of ours that zooid may still serve under a host that another relay wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occupant {
    /// The relay.
    pub id: RelayId,
    /// The host that it is to move to.
    pub wanted: String,
    /// It waits for a host of the asking relay, directly or through others: neither can move before the
    /// other.
    pub is_mutual: bool,
}

/// Returns the relay of ours that zooid may still serve under the wanted host of `relay`. `None` if there
/// is none: then the host belongs to something that Tender does not manage.
///
/// Follows the chain of relays that wait for each other's hosts over at most 50 of them.
///
/// # Errors
/// See [`provision`](super).
pub async fn occupant(
    db: impl PgExecutor<'_>,
    relay: &Relay,
) -> Result<Option<Occupant>, sqlx::Error> {
    let row = sqlx::query!(
        r#"with recursive chain (id, wanted, place) as (
               select $1::text, $2::text, 0
               union all
               select other.id::text, other.subdomain || '.' || other.zooid_domain, place + 1
               from chain join lateral (
                   select id, subdomain, zooid_domain from relay
                   where old_hosts @> array[chain.wanted] and old_hosts <> '{}' and id <> chain.id
                   order by lease_epoch desc, id limit 1) other on true
               where place < 50 and (place = 0 or chain.id <> $1)
           )
           select id as "id!: RelayId", wanted as "wanted!",
                  exists (select from chain where place > 0 and id = $1) as "is_mutual!"
           from chain where place = 1"#,
        relay.id.as_str(),
        relay.host(),
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Occupant { id: row.id, wanted: row.wanted, is_mutual: row.is_mutual }))
}
