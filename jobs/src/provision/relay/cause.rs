//! Relays that gave up, grouped by cause, and relays that wait for too long.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use super::{By, COUNT_CAP, RelayId};
use crate::provision::steer;

/// The relays that are grouped: those that gave up last.
const GROUPED: i64 = 1000;

/// Relays that gave up for the same cause.
#[derive(Debug, Clone, Serialize)]
pub struct Cause {
    /// What their errors have in common (`cause_of` in the schema).
    pub cause: String,
    /// How many relays.
    pub relays: i64,
    /// When the first of them gave up.
    pub since: DateTime<Utc>,
    /// The relay that gave up last.
    pub latest_id: RelayId,
    /// Its host.
    pub latest_host: String,
    /// Its error.
    pub latest_error: String,
}

/// Groups the last 1,000 relays that gave up by cause. Returns at most `limit` groups, the largest first.
pub async fn causes(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Cause>, sqlx::Error> {
    sqlx::query_as!(
        Cause,
        r#"select cause as "cause!", count(*) as "relays!", min(exhausted_at) as "since!",
                  (array_agg(id order by exhausted_at desc, id))[1] as "latest_id!: RelayId",
                  (array_agg(host order by exhausted_at desc, id))[1] as "latest_host!",
                  (array_agg(sync_error order by exhausted_at desc, id))[1] as "latest_error!"
           from (select id, host, sync_error::text, exhausted_at, cause_of(sync_error, array[host]) as cause
                 from (select id, subdomain || '.' || zooid_domain as host, sync_error, exhausted_at
                       from relay where exhausted_at is not null
                       order by exhausted_at desc, id desc limit $2) last) relay
           group by cause
           order by count(*) desc, min(exhausted_at), cause
           limit $1"#,
        limit,
        GROUPED,
    )
    .fetch_all(db)
    .await
}

/// Requests a sync of at most 1,000 relays that gave up for this cause. Returns how many were requested.
pub async fn request_cause(db: &PgPool, cause: &str, by: &By) -> Result<usize, sqlx::Error> {
    let relays = sqlx::query_scalar!(
        r#"select id as "id: RelayId" from relay
           where exhausted_at is not null
             and cause_of(sync_error, array[subdomain || '.' || zooid_domain]) = $1
           order by exhausted_at desc, id desc limit $2"#,
        cause,
        GROUPED,
    );
    let mut relays = relays.fetch_all(db).await?;
    relays.sort();
    steer::request_page(db, &relays, by).await
}

/// Counts the relays that have waited longer than `age` for zooid, up to [`COUNT_CAP`].
pub async fn late(db: impl PgExecutor<'_>, age: Duration) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "late!" from (
               select from relay where not synced and exhausted_at is null
                 and updated_at < now() - make_interval(secs => $1) limit $2) late"#,
        age.as_secs_f64(),
        COUNT_CAP,
    )
    .fetch_one(db)
    .await
}
