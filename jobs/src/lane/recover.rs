//! Recovery: lanes whose holder died, and lanes whose cool-down is over, are free again. Cursors stay.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::LaneKind;

/// A lane that is free again.
#[derive(Debug, Clone, Serialize)]
pub struct Freed {
    /// Its id.
    pub id: Uuid,
    /// Its kind.
    pub lane: LaneKind,
    /// Its upstream.
    pub upstream_id: Uuid,
    /// Its upstream's address.
    pub url: String,
    /// What its error was.
    pub error: Option<String>,
}

/// What a recovery did.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovered {
    /// Lanes that were held without a sign of life.
    pub stale: Vec<Freed>,
    /// Lanes that were in error long enough.
    pub errors: Vec<Freed>,
}

/// Frees lanes; `stale` is how long a holder may be silent where its upstream says nothing else. With
/// `is_forced`, `stale` holds for all, and `error_age` frees lanes in error for longer than that instead
/// of those whose cool-down is over.
///
/// # Errors
/// The database did not answer.
pub async fn recover(
    db: &PgPool,
    stale: Duration,
    is_forced: bool,
    error_age: Option<Duration>,
) -> Result<Recovered, sqlx::Error> {
    let stale = sqlx::query_as!(
        Freed,
        r#"update lane set status = 'idle', lease_owner = null, lease_epoch = lease_epoch + 1
           from upstream u
           where u.id = lane.upstream_id and lane.status = 'syncing'
             and lane.heartbeat_at < now() - make_interval(secs => case
                 when $2 then $1
                 else coalesce((u.config->>'stale_threshold_minutes')::float8 * 60, $1) end)
           returning lane.id, lane.lane as "lane: LaneKind", lane.upstream_id, u.url, null::text as error"#,
        stale.as_secs_f64(),
        is_forced,
    )
    .fetch_all(db)
    .await?;
    let errors = sqlx::query_as!(
        Freed,
        r#"with freed as materialized (
               select lane.id, lane.error_message from lane
               where status = 'error'
                 and case when $1::float8 is null then retry_at <= now()
                          else failed_at <= now() - make_interval(secs => $1) end
               for update skip locked
           )
           update lane set status = 'idle', error_message = null, retry_at = null
           from freed, upstream u
           where lane.id = freed.id and u.id = lane.upstream_id
           returning lane.id, lane.lane as "lane: LaneKind", lane.upstream_id, u.url,
                     freed.error_message as error"#,
        error_age.map(|age| age.as_secs_f64()),
    )
    .fetch_all(db)
    .await?;
    Ok(Recovered { stale, errors })
}

/// Removes the lanes of an upstream, or all: their work starts anew. How many.
///
/// # Errors
/// The database did not answer.
pub async fn reset(db: &PgPool, upstream: Option<Uuid>) -> Result<u64, sqlx::Error> {
    let deleted =
        sqlx::query!("delete from lane where $1::uuid is null or upstream_id = $1", upstream)
            .execute(db)
            .await?;
    Ok(deleted.rows_affected())
}
