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
    /// It gave up, so it will not move by itself.
    pub is_stuck: bool,
}

/// Returns a relay of ours that zooid may still serve under the wanted host of `relay`, one that waits for
/// this relay first. `None` if there is none.
///
/// # Errors
/// See [`provision`](super).
pub async fn occupant(
    db: impl PgExecutor<'_>,
    relay: &Relay,
) -> Result<Option<Occupant>, sqlx::Error> {
    // A host may be on the lists of several relays, so every chain of relays that wait for each other is
    // followed; each relay is visited once.
    let row = sqlx::query!(
        r#"with recursive chain (first, id, wanted) as (
               select id::text, id::text, subdomain || '.' || zooid_domain from relay
               where old_hosts @> array[$2::text] and old_hosts <> '{}' and id <> $1
               union
               select chain.first, other.id::text, other.subdomain || '.' || other.zooid_domain
               from chain join relay other
                   on other.old_hosts @> array[chain.wanted] and other.old_hosts <> '{}'
                  and other.id <> chain.id
               where chain.id <> $1
           )
           select occupant.id as "id!: RelayId", occupant.wanted as "wanted!",
                  exists (select from chain where first = occupant.id and id = $1) as "is_mutual!",
                  (select exhausted_at is not null from relay where id = occupant.id) as "is_stuck!"
           from (select * from chain where id = first) occupant
           order by 3 desc, 1
           limit 1"#,
        relay.id.as_str(),
        relay.host(),
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Occupant {
        id: row.id,
        wanted: row.wanted,
        is_mutual: row.is_mutual,
        is_stuck: row.is_stuck,
    }))
}

/// Whether zooid accepted the wanted host for this relay before.
///
/// # Errors
/// See [`provision`](super).
pub async fn had_host(db: impl PgExecutor<'_>, relay: &Relay) -> Result<bool, sqlx::Error> {
    let had = sqlx::query_scalar!(
        r#"select coalesce(sent->>'host' = $2, false) as "had!" from relay where id = $1"#,
        relay.id.as_str(),
        relay.host(),
    );
    Ok(had.fetch_optional(db).await?.unwrap_or_default())
}
