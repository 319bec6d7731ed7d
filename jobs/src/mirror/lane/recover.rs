//! Recovery frees lanes whose holder died, and lanes in error whose retry is due. Their cursors do
//! not change.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;
use uuid::Uuid;

use super::LaneKind;

/// A lane that recovery freed.
#[derive(Debug, Clone, Serialize)]
pub struct Freed {
    /// The id of the lane.
    pub id: Uuid,
    /// The work that the lane does.
    pub lane: LaneKind,
    /// The id of the upstream.
    pub upstream_id: Uuid,
    /// The address of the upstream.
    pub url: String,
    /// The error that the lane had; `None` for a stale lane.
    pub error: Option<String>,
}

/// The lanes that recovery freed.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Recovered {
    /// Lanes whose holder sent no heartbeat.
    pub stale: Vec<Freed>,
    /// Lanes in error whose retry was due.
    pub errors: Vec<Freed>,
}

/// Frees stale lanes and lanes in error. A lane is stale if its holder has sent no heartbeat for
/// the threshold of its upstream, or for `stale` if the upstream sets none; with `is_forced`,
/// `stale` applies to every upstream. With `error_age`, lanes are freed that failed at least that
/// long ago, instead of those whose retry is due.
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
               where status = 'error' and retired_at is null
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
