//! Lanes with their statistics, for commands and pages.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use uuid::Uuid;

use super::LaneKind;

/// A lane with its statistics.
#[derive(Debug, Clone, Serialize)]
pub struct LaneState {
    /// The id of the row.
    pub id: Uuid,
    /// The id of the upstream.
    pub upstream_id: Uuid,
    /// The address of the upstream.
    pub url: String,
    /// The work that the lane does.
    pub lane: LaneKind,
    /// The identity of its filter; see [`filter_hash`](super::filter_hash).
    pub filter_hash: String,
    /// `idle`, `syncing`, `completed` or `error`.
    pub status: String,
    /// The upstream's direction: `down`, `up` or `both`.
    pub direction: String,
    /// Whether the upstream is enabled; the lanes of a disabled one do no work.
    pub is_enabled: bool,
    /// Whether the holder has sent no heartbeat for the upstream's threshold.
    pub is_stale: bool,
    /// Progress of the backfill in per cent, to one decimal; `None` for a lane without a backfill.
    pub progress: Option<f64>,
    /// Realtime: the upstream was asked for every event before this time, in Unix seconds.
    pub cursor_at: Option<i64>,
    /// The age of the cursor, in seconds.
    pub cursor_age: Option<i64>,
    /// When the backfill began, in Unix seconds.
    pub backfill_started_at: Option<i64>,
    /// The oldest time that the backfill covers, in Unix seconds.
    pub backfill_target: Option<i64>,
    /// The backfill has covered the time from here to its beginning; Unix seconds.
    pub backfill_until: Option<i64>,
    /// The length of the next window.
    pub window_seconds: Option<i64>,
    /// The method of the last window: `polling` or `negentropy`.
    pub method: Option<String>,
    /// Events received from the upstream.
    pub received: i64,
    /// Received events that were new and were stored.
    pub stored: i64,
    /// Received events that were known already.
    pub duplicate: i64,
    /// Received events that were rejected.
    pub rejected: i64,
    /// Uploads that the upstream accepted.
    pub uploaded: i64,
    /// Uploads that the upstream had already.
    pub upload_duplicate: i64,
    /// Uploads that the upstream refused permanently.
    pub upload_rejected: i64,
    /// Uploads that wait for a retry.
    pub upload_pending: i64,
    /// Every stored event up to this position has a verdict of the upstream.
    pub upload_position: i64,
    /// Ids that the upstream listed and did not deliver.
    pub unavailable: i64,
    /// Events that the upstream sent without a request.
    pub violations: i64,
    /// Seconds with more events than the upstream returns per page.
    pub saturated_seconds: i64,
    /// Gaps: seconds that hold more events than the upstream gives.
    pub gap_seconds: i32,
    /// Gaps: ids that the upstream listed and did not deliver.
    pub gap_ids: i32,
    /// Gaps: windows whose answer was not proven to be complete.
    pub gap_spans: i32,
    /// When the oldest gap was found; `None` without a gap.
    pub gaps_since: Option<DateTime<Utc>>,
    /// When the first gap is due for a retry; `None` without a gap.
    pub gap_retry_at: Option<DateTime<Utc>>,
    /// When progress was last stored.
    pub last_synced_at: Option<DateTime<Utc>>,
    /// When the upstream last acknowledged an upload.
    pub last_upload_at: Option<DateTime<Utc>>,
    /// Uploads: the upstream's words for the last event that it refused.
    pub upload_refusal: Option<String>,
    /// When it refused that event.
    pub upload_refused_at: Option<DateTime<Utc>>,
    /// The error of the last run; `None` if it succeeded.
    pub error_message: Option<String>,
    /// When the lane failed; `None` without an error.
    pub failed_at: Option<DateTime<Utc>>,
    /// When the retry of a failed lane is due.
    pub retry_at: Option<DateTime<Utc>>,
    /// Failures in a row.
    pub consecutive_failures: i32,
    /// The error of the last failed attempt; `None` once an attempt succeeds.
    pub last_error: Option<String>,
    /// When that attempt failed.
    pub last_error_at: Option<DateTime<Utc>>,
    /// Failed attempts of the current job.
    pub failed_attempts: i32,
    /// Attempts that the job may make before the lane is in error.
    pub allowed_attempts: i32,
    /// When the next attempt is due; `None` unless one waits.
    pub next_attempt_at: Option<DateTime<Utc>>,
    /// When a position, a stored event or a verdict last moved the lane on.
    pub progressed_at: Option<DateTime<Utc>>,
    /// The id of the job, or the name of the process, that holds the lane.
    pub lease_owner: Option<String>,
    /// When the holder last sent a heartbeat.
    pub heartbeat_at: Option<DateTime<Utc>>,
}

impl LaneState {
    /// Returns the number of gaps. A completed lane with gaps is *completed with gaps*.
    pub fn gaps(&self) -> i64 {
        i64::from(self.gap_seconds) + i64::from(self.gap_ids) + i64::from(self.gap_spans)
    }
}

/// Returns every lane, the one with the latest progress first; at most 50,000. `stale_secs` is the
/// threshold of a stale lane if its upstream sets none.
pub async fn states(
    db: impl PgExecutor<'_>,
    stale_secs: u64,
) -> Result<Vec<LaneState>, sqlx::Error> {
    select(db, None, None, stale_secs).await
}

/// Returns the lanes of an upstream; otherwise like [`states`].
pub async fn states_of(
    db: impl PgExecutor<'_>,
    upstream: Uuid,
    stale_secs: u64,
) -> Result<Vec<LaneState>, sqlx::Error> {
    select(db, Some(upstream), None, stale_secs).await
}

/// Returns the lane with this id; `None` if it does not exist. `stale_secs` is as in [`states`].
pub async fn state(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    stale_secs: u64,
) -> Result<Option<LaneState>, sqlx::Error> {
    Ok(select(db, None, Some(lane), stale_secs).await?.pop())
}

async fn select(
    db: impl PgExecutor<'_>,
    upstream: Option<Uuid>,
    lane: Option<Uuid>,
    stale_secs: u64,
) -> Result<Vec<LaneState>, sqlx::Error> {
    sqlx::query_as!(
        LaneState,
        r#"select l.id, l.upstream_id, u.url, l.lane as "lane: LaneKind", l.filter_hash, l.status,
                  u.direction, u.enabled as is_enabled,
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
                  l.upload_position, l.unavailable, l.violations, l.saturated_seconds, l.gap_seconds, l.gap_ids,
                  l.gap_spans, l.gaps_since, l.gap_retry_at, l.last_synced_at, l.last_upload_at,
                  l.upload_refusal, l.upload_refused_at, l.error_message, l.failed_at, l.retry_at,
                  l.consecutive_failures, l.last_error, l.last_error_at, l.failed_attempts, l.allowed_attempts,
                  l.next_attempt_at, l.progressed_at, l.lease_owner, l.heartbeat_at
           from lane l join upstream u on u.id = l.upstream_id
           where l.retired_at is null and ($1::uuid is null or l.upstream_id = $1) and ($2::uuid is null or l.id = $2)
           order by l.last_synced_at desc nulls last, u.url, l.lane
           limit 50000"#,
        upstream,
        lane,
        i32::try_from(stale_secs).map_or(f64::from(i32::MAX), f64::from),
    )
    .fetch_all(db)
    .await
}

/// Returns the number of lanes of one upstream, or of all.
pub async fn number(db: impl PgExecutor<'_>, upstream: Option<Uuid>) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from lane where $1::uuid is null or upstream_id = $1"#,
        upstream as _
    )
    .fetch_one(db)
    .await
}
