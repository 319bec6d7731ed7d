//! Lanes, as people see them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::LaneKind;

/// A lane with all that is known of it.
#[derive(Debug, Clone, Serialize)]
pub struct LaneState {
    /// Its id.
    pub id: Uuid,
    /// Its upstream.
    pub upstream_id: Uuid,
    /// Its upstream's address.
    pub url: String,
    /// Its kind.
    pub lane: LaneKind,
    /// Which filter it is of.
    pub filter_hash: String,
    /// `idle`, `syncing`, `completed`, `error`.
    pub status: String,
    /// Which way its events go, as its upstream is set.
    pub direction: String,
    /// Held without a sign of life for too long.
    pub is_stale: bool,
    /// History done, in per cent to one decimal; `None` where there is none.
    pub progress: Option<f64>,
    /// Realtime: asked for everything before; Unix seconds.
    pub cursor_at: Option<i64>,
    /// Seconds that the cursor is behind.
    pub cursor_age: Option<i64>,
    /// When history was begun; Unix seconds.
    pub backfill_started_at: Option<i64>,
    /// How far back it goes; Unix seconds.
    pub backfill_target: Option<i64>,
    /// How far it has come; Unix seconds.
    pub backfill_until: Option<i64>,
    /// Length of its windows now.
    pub window_seconds: Option<i64>,
    /// How its last window was done.
    pub method: Option<String>,
    /// Events received.
    pub received: i64,
    /// New ones stored.
    pub stored: i64,
    /// Ones that were here.
    pub duplicate: i64,
    /// Ones refused.
    pub rejected: i64,
    /// Uploads accepted.
    pub uploaded: i64,
    /// Uploads that it had.
    pub upload_duplicate: i64,
    /// Uploads refused for good.
    pub upload_rejected: i64,
    /// Uploads that wait for another try.
    pub upload_pending: i64,
    /// How far uploads have come.
    pub upload_position: i64,
    /// Ids that it listed and did not deliver.
    pub unavailable: i64,
    /// What it sent and nobody had asked for.
    pub violations: i64,
    /// Seconds that hold more events than its page.
    pub saturated_seconds: i64,
    /// Last write of progress.
    pub last_synced_at: Option<DateTime<Utc>>,
    /// Last acknowledged upload.
    pub last_upload_at: Option<DateTime<Utc>>,
    /// Its error.
    pub error_message: Option<String>,
    /// Since when.
    pub failed_at: Option<DateTime<Utc>>,
    /// When it is tried again.
    pub retry_at: Option<DateTime<Utc>>,
    /// Failures in a row.
    pub consecutive_failures: i32,
    /// The job, or process, that holds it.
    pub lease_owner: Option<String>,
    /// Its last sign of life.
    pub heartbeat_at: Option<DateTime<Utc>>,
}

/// Every lane, the last worked on first; at most 50,000.
///
/// # Errors
/// The database did not answer.
pub async fn states(
    db: impl PgExecutor<'_>,
    stale_secs: u64,
) -> Result<Vec<LaneState>, sqlx::Error> {
    select(db, None, None, stale_secs, false).await
}

/// The lanes of an upstream.
///
/// # Errors
/// The database did not answer.
pub async fn states_of(
    db: impl PgExecutor<'_>,
    upstream: Uuid,
    stale_secs: u64,
) -> Result<Vec<LaneState>, sqlx::Error> {
    select(db, Some(upstream), None, stale_secs, false).await
}

/// Lanes of enabled upstreams that are in error, or held without a sign of life for ten minutes: the
/// ones that failed last first.
///
/// # Errors
/// The database did not answer.
pub async fn troubled(
    db: impl PgExecutor<'_>,
    limit: usize,
) -> Result<Vec<LaneState>, sqlx::Error> {
    let mut lanes = select(db, None, None, 600, true).await?;
    lanes.sort_by_key(|lane| std::cmp::Reverse(lane.failed_at));
    lanes.truncate(limit);
    Ok(lanes)
}

/// One lane.
///
/// # Errors
/// The database did not answer.
pub async fn state(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    stale_secs: u64,
) -> Result<Option<LaneState>, sqlx::Error> {
    Ok(select(db, None, Some(lane), stale_secs, false).await?.pop())
}

async fn select(
    db: impl PgExecutor<'_>,
    upstream: Option<Uuid>,
    lane: Option<Uuid>,
    stale_secs: u64,
    only_troubled: bool,
) -> Result<Vec<LaneState>, sqlx::Error> {
    sqlx::query_as!(
        LaneState,
        r#"select l.id, l.upstream_id, u.url, l.lane as "lane: LaneKind", l.filter_hash, l.status,
                  u.direction,
                  coalesce(l.status = 'syncing' and l.heartbeat_at < now() - make_interval(secs =>
                      coalesce((u.config->>'stale_threshold_minutes')::float8 * 60, $3)), false) as "is_stale!",
                  case when l.backfill_until is null then null
                       when l.backfill_until <= l.backfill_target then 100.0
                       else round(100.0 * (l.backfill_started_at - l.backfill_until)
                                  / (l.backfill_started_at - l.backfill_target), 1)::float8 end as progress,
                  l.cursor_at, extract(epoch from now())::bigint - l.cursor_at as cursor_age,
                  l.backfill_started_at, l.backfill_target, l.backfill_until, l.window_seconds, l.method,
                  l.received, l.stored, l.duplicate, l.rejected, l.uploaded, l.upload_duplicate,
                  l.upload_rejected,
                  case when l.lane = 'upload' then (select count(*) from upload_verdict v
                      where v.upstream_id = u.id and v.verdict = 'pending') else 0 end as "upload_pending!",
                  l.upload_position, l.unavailable, l.violations, l.saturated_seconds, l.last_synced_at, l.last_upload_at, l.error_message, l.failed_at, l.retry_at,
                  l.consecutive_failures, l.lease_owner, l.heartbeat_at
           from lane l join upstream u on u.id = l.upstream_id
           where ($1::uuid is null or l.upstream_id = $1) and ($2::uuid is null or l.id = $2)
             and (not $4 or (u.enabled and (l.status = 'error' or (l.status = 'syncing'
                  and l.heartbeat_at < now() - make_interval(secs => $3)))))
           order by l.last_synced_at desc nulls last, u.url, l.lane
           limit 50000"#,
        upstream,
        lane,
        i32::try_from(stale_secs).map_or(f64::from(i32::MAX), f64::from),
        only_troubled,
    )
    .fetch_all(db)
    .await
}
