//! Reads relays: one by its id, those of a tenant, or all in pages.

use sqlx::{PgExecutor, PgPool};

use super::{
    Relay, RelayId, relay_query,
    search::{Search, ids},
};

/// Returns the relay with this id; `None` if it does not exist.
pub async fn find(db: impl PgExecutor<'_>, id: &RelayId) -> Result<Option<Relay>, sqlx::Error> {
    let row = relay_query!("", "from relay where id = $1", id.as_str()).fetch_optional(db).await?;
    Ok(row.map(Relay::from))
}

/// Returns the relay with this host, in lower case; `None` if it does not exist.
pub async fn find_by_host(
    db: impl PgExecutor<'_>,
    host: &str,
) -> Result<Option<Relay>, sqlx::Error> {
    let (subdomain, domain) = host.split_once('.').unwrap_or((host, ""));
    let row = relay_query!(
        "",
        "from relay where subdomain = $1 and zooid_domain = $2",
        subdomain as _,
        domain
    );
    Ok(row.fetch_optional(db).await?.map(Relay::from))
}

/// Returns the last body that zooid accepted, with secrets masked; `None` before the first one.
pub async fn last_sent(
    db: impl PgExecutor<'_>,
    id: &RelayId,
) -> Result<Option<serde_json::Value>, sqlx::Error> {
    let sent = sqlx::query_scalar!("select sent from relay where id = $1", id.as_str());
    Ok(sent.fetch_optional(db).await?.flatten())
}

/// Returns at most `limit` relays of a tenant, newest first, that follow `after` in this order.
pub async fn of_tenant(
    db: impl PgExecutor<'_>,
    pubkey: &str,
    after: Option<&RelayId>,
    limit: i64,
) -> Result<Vec<Relay>, sqlx::Error> {
    let rows = relay_query!(
        "",
        "from relay
         where tenant_pubkey = $1
           and ($2::text is null
                or (created_at, id) < (select created_at, id from relay last where last.id = $2))
         order by created_at desc, id desc
         limit $3",
        pubkey as _,
        after.map(RelayId::as_str) as _,
        limit
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(Relay::from).collect())
}

/// Returns one page of at most `limit` relays; see [`Search`].
pub async fn list(db: &PgPool, search: &Search, limit: i64) -> Result<Vec<Relay>, sqlx::Error> {
    let ids = ids(db, search, limit).await?;
    let rows = relay_query!(
        "",
        "from relay where id = any($1) order by array_position($1, id::text)",
        &ids
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(Relay::from).collect())
}
