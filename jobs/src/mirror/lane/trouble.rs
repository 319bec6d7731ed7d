//! Lanes that do not work, grouped by cause.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::LaneKind;

/// A holder that has sent no heartbeat for this long is gone, in seconds.
const STALE_SECS: f64 = 600.0;
/// The lanes that are grouped: those that failed last.
const GROUPED: i64 = 5000;

/// Lanes of enabled upstreams that do not work for the same cause: they failed and have not succeeded
/// since, or their holder has sent no heartbeat for ten minutes.
#[derive(Debug, Clone, Serialize)]
pub struct Trouble {
    /// What their errors have in common (`cause_of` in the schema); empty if they are stale.
    pub cause: String,
    /// How many lanes.
    pub lanes: i64,
    /// Of how many upstreams.
    pub upstreams: i64,
    /// When the first of them failed or was last heard of; `None` if no time is known.
    pub since: Option<DateTime<Utc>>,
    /// The upstream of the lane that failed last.
    pub upstream_id: Uuid,
    /// Its URL.
    pub url: String,
    /// The kind of that lane.
    pub lane: LaneKind,
    /// The error of that lane.
    pub error: String,
    /// The lanes of all causes, whether they are returned or not.
    pub all_lanes: i64,
}

/// Groups the lanes that do not work by cause. Returns at most `limit` groups, the largest first.
pub async fn troubles(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Trouble>, sqlx::Error> {
    sqlx::query_as!(
        Trouble,
        r#"select cause as "cause!", count(*) as "lanes!", count(distinct upstream_id) as "upstreams!",
                  min(since) as since,
                  (array_agg(upstream_id order by since desc nulls last, id))[1] as "upstream_id!",
                  (array_agg(url order by since desc nulls last, id))[1] as "url!",
                  (array_agg(lane order by since desc nulls last, id))[1] as "lane!: LaneKind",
                  (array_agg(error order by since desc nulls last, id))[1] as "error!",
                  (sum(count(*)) over ())::bigint as "all_lanes!"
           from troubled_lane($2, $3)
           group by cause
           order by count(*) desc, min(since), cause
           limit $1"#,
        limit,
        STALE_SECS,
        GROUPED,
    )
    .fetch_all(db)
    .await
}

/// Returns the upstreams that have a lane with this cause.
pub async fn upstreams_with(
    db: impl PgExecutor<'_>,
    cause: &str,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select distinct upstream_id as "upstream_id!" from troubled_lane($2, $3) where cause = $1"#,
        cause,
        STALE_SECS,
        GROUPED,
    )
    .fetch_all(db)
    .await
}
