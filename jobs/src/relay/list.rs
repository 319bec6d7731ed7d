//! Reading relays: one, a tenant's, all in pages.

use sqlx::PgExecutor;

use super::{Relay, RelayId, RelayRow, Status, SyncState, relay_query};

/// Which relays, and which page of them.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only with this status.
    pub status: Option<Status>,
    /// Only in this state of sync.
    pub sync: Option<SyncState>,
    /// Only those whose host, id, name or tenant contains this text (case does not matter).
    pub query: Option<String>,
    /// Only those after this relay, in the order of the list.
    pub after: Option<RelayId>,
}

/// The relay with this id.
///
/// # Errors
/// The database did not answer.
pub async fn find(db: impl PgExecutor<'_>, id: &RelayId) -> Result<Option<Relay>, sqlx::Error> {
    let row = relay_query!("", "from relay where id = $1", id.as_str()).fetch_optional(db).await?;
    Ok(row.map(Relay::from))
}

/// The body that zooid was last told and took, secrets masked; `None` before the first.
///
/// # Errors
/// The database did not answer.
pub async fn last_sent(
    db: impl PgExecutor<'_>,
    id: &RelayId,
) -> Result<Option<serde_json::Value>, sqlx::Error> {
    let sent = sqlx::query_scalar!("select sent from relay where id = $1", id.as_str());
    Ok(sent.fetch_optional(db).await?.flatten())
}

/// A tenant's relays, newest first; at most 1,000.
///
/// # Errors
/// The database did not answer.
pub async fn of_tenant(db: impl PgExecutor<'_>, pubkey: &str) -> Result<Vec<Relay>, sqlx::Error> {
    let rows = relay_query!(
        "",
        "from relay where tenant_pubkey = $1 order by created_at desc, id desc limit 1000",
        pubkey
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(Relay::from).collect())
}

/// All relays that match, newest first, at most `limit`.
///
/// # Errors
/// The database did not answer.
pub async fn list(
    db: impl PgExecutor<'_>,
    filter: &Filter,
    limit: i64,
) -> Result<Vec<Relay>, sqlx::Error> {
    let rows: Vec<RelayRow> = relay_query!(
        "",
        "from relay
         where ($1::text is null or status = $1)
           and ($2::text is null
                or $2 = case when synced then 'synced'
                             when exhausted_at is not null then 'gave_up'
                             when attempts > 0 then 'retrying'
                             else 'pending' end)
           -- Says to the planner that those three states are in the index of pending relays.
           and ($2 is null or $2 = 'synced' or not synced)
           and ($3::text is null
                or strpos(subdomain || '.' || zooid_domain, lower($3)) > 0
                or strpos(lower(info_name), lower($3)) > 0
                or starts_with(id, lower($3))
                or starts_with(tenant_pubkey, lower($3)))
           and ($4::text is null
                or (created_at, id) < (select a.created_at, a.id from relay a where a.id = $4))
         order by created_at desc, id desc
         limit $5",
        filter.status.map(Status::as_str),
        filter.sync.map(SyncState::as_str),
        filter.query.as_deref(),
        filter.after.as_ref().map(RelayId::as_str),
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Relay::from).collect())
}
