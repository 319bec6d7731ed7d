//! The overview and the table of all relays. Counts come from counters or are capped, and pages
//! start at a key. The cost therefore does not grow with the number of relays.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use super::{
    Status, SyncState,
    search::{Search, ids},
};

/// Counts stop here. A larger count is shown as "at least" this number.
pub const COUNT_CAP: i64 = 10_000;

/// Counts of relays by state.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// All relays.
    pub total: i64,
    /// Relays whose wanted state zooid has.
    pub synced: i64,
    /// Relays without an attempt at their current generation.
    pub pending: i64,
    /// Failing relays: the last attempt failed, and a retry is scheduled.
    pub retrying: i64,
    /// Relays that gave up.
    pub gave_up: i64,
    /// Relays that the tenant or the operator deactivated, synced or not.
    pub inactive: i64,
    /// A count exceeded [`COUNT_CAP`]: the relays that are not synced are at least the count, and
    /// `synced` is an upper bound.
    pub is_capped: bool,
    /// When the relay that has waited longest for zooid last changed.
    pub oldest_pending_at: Option<DateTime<Utc>>,
}

/// Returns the counts of relays. Reads two counters and three capped ranges of small indexes.
pub async fn summary(db: impl PgExecutor<'_>) -> Result<Summary, sqlx::Error> {
    let row = sqlx::query!(
        r#"select
               (select coalesce(sum(relays), 0)::bigint from relay_count) as "total!",
               (select coalesce(sum(relays), 0)::bigint from relay_count where status <> 'active') as "inactive!",
               (select count(*) from (select from relay
                where not synced and exhausted_at is null limit $1) waiting) as "waiting!",
               (select count(*) from (select from relay
                where not synced and attempts > 0 and exhausted_at is null limit $1) r) as "retrying!",
               (select count(*) from (select from relay
                where exhausted_at is not null limit $1) g) as "gave_up!",
               (select min(updated_at) from relay
                where not synced and exhausted_at is null) as oldest_pending_at"#,
        COUNT_CAP + 1,
    )
    .fetch_one(db)
    .await?;
    let is_capped = row.waiting > COUNT_CAP || row.gave_up > COUNT_CAP;
    let (waiting, retrying) = (row.waiting.min(COUNT_CAP), row.retrying.min(COUNT_CAP));
    let gave_up = row.gave_up.min(COUNT_CAP);
    Ok(Summary {
        total: row.total,
        synced: (row.total - waiting - gave_up).max(0),
        pending: (waiting - retrying).max(0),
        retrying,
        gave_up,
        inactive: row.inactive,
        is_capped,
        oldest_pending_at: row.oldest_pending_at,
    })
}

/// A row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct Row {
    /// The relay's id.
    pub id: String,
    /// The relay's host, `subdomain.zooid_domain`.
    pub host: String,
    /// The public key of the tenant, 64 hex digits.
    pub tenant_pubkey: String,
    /// Whether the relay serves its members.
    pub status: Status,
    /// Whether zooid has the wanted state.
    pub synced: bool,
    /// Failed attempts in a row at this generation.
    pub attempts: i32,
    /// When the next retry is due; `None` if none is scheduled.
    pub retry_at: Option<DateTime<Utc>>,
    /// When the relay gave up; `None` while attempts are left.
    pub exhausted_at: Option<DateTime<Utc>>,
    /// The last failure at this generation; empty without a failure.
    pub sync_error: String,
    /// When the generation last changed.
    pub updated_at: DateTime<Utc>,
}

impl Row {
    /// Returns the progress of the current generation.
    pub fn sync_state(&self) -> SyncState {
        SyncState::of(self.synced, self.exhausted_at.is_some(), self.attempts)
    }
}

/// Returns one page of at most `limit` relays.
pub async fn search(db: &PgPool, search: &Search, limit: i64) -> Result<Vec<Row>, sqlx::Error> {
    let ids = ids(db, search, limit).await?;
    sqlx::query_as!(
        Row,
        r#"select id::text as "id!", subdomain || '.' || zooid_domain as "host!",
                  tenant_pubkey::text as "tenant_pubkey!", status as "status: Status", synced, attempts,
                  retry_at, exhausted_at, sync_error::text as "sync_error!", updated_at
           from relay where id = any($1) order by array_position($1, id::text)"#,
        &ids,
    )
    .fetch_all(db)
    .await
}
