//! Settling: what a job came to, its lane's progress, its own row and the job that goes on, in one
//! transaction.

use std::time::Duration;

use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::Lease;
use crate::{
    event::EventId,
    queue::{self, Job, Settled, Work, one_line},
};

/// What a job has done of its lane; numbers are added to the lane's.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Events received, in whatever shape.
    pub received: i64,
    /// New ones stored.
    pub stored: i64,
    /// Ones that were here or known.
    pub duplicate: i64,
    /// Ones refused.
    pub rejected: i64,
    /// Uploads accepted.
    pub uploaded: i64,
    /// Uploads that the relay had.
    pub upload_duplicate: i64,
    /// Uploads refused for good.
    pub upload_rejected: i64,
    /// Ids listed and not delivered.
    pub unavailable: i64,
    /// What nobody had asked for.
    pub violations: i64,
    /// Seconds with more events than a page.
    pub saturated_seconds: i64,
    /// Everything from here on is done; only ever lowers the lane's.
    pub backfill_until: Option<i64>,
    /// The relay was asked for everything before; only ever raises the lane's.
    pub cursor_at: Option<i64>,
    /// Length of the next window, and how many cheap ones came before it.
    pub window: Option<(i64, i32)>,
    /// Everything up to here has a verdict; only ever raises the lane's.
    pub upload_position: Option<i64>,
    /// The newest event seen.
    pub last_download: Option<EventId>,
    /// The last event acknowledged.
    pub last_upload: Option<EventId>,
    /// `polling` or `negentropy`.
    pub method: Option<&'static str>,
}

/// How a job ends.
#[derive(Debug, Clone)]
pub enum Ending {
    /// The lane goes on with a new job, after a pause.
    GoesOn(Duration),
    /// The lane rests until its next run; how it is then called: `idle`, or `completed`.
    Rests {
        /// History is done.
        is_complete: bool,
    },
    /// The same job tries again later; an attempt is spent.
    Again {
        /// When.
        after: Duration,
        /// Why.
        error: String,
    },
    /// The lane is in error until its cool-down is over.
    Failed {
        /// Why.
        error: String,
        /// Cool-down of a first failure; doubled by each further one, up to a day.
        rest: Duration,
    },
}

/// Writes progress in the middle of a job. False when the lane is lost.
///
/// # Errors
/// The database did not answer.
pub async fn checkpoint(
    db: &PgPool,
    lease: &Lease,
    progress: &Progress,
) -> Result<bool, sqlx::Error> {
    let mut connection = db.acquire().await?;
    write(&mut connection, lease, progress).await
}

/// Adds to the counters of a lane that nobody needs to hold.
///
/// # Errors
/// The database did not answer.
pub async fn note(db: &PgPool, lane: Uuid, received: i64) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set received = received + $2, last_synced_at = now() where id = $1",
        lane,
        received,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a job: progress, the lane's state, the job's row, the next job, and `more` jobs besides, all or
/// nothing.
///
/// # Errors
/// The database did not answer; asking again is harmless.
pub async fn settle(
    db: &PgPool,
    job: &Job,
    lease: &Lease,
    progress: &Progress,
    ending: &Ending,
    more: &[Work],
    result: &Value,
) -> Result<Settled<()>, sqlx::Error> {
    let mut tx = db.begin().await?;
    if !write(&mut tx, lease, progress).await? {
        return Ok(Settled::LeaseLost);
    }
    let ended = match ending {
        Ending::Again { after, error } => queue::retry_later(&mut tx, job, *after, error).await?,
        Ending::Failed { error, .. } => queue::kill(&mut *tx, job, error).await?,
        Ending::GoesOn(_) | Ending::Rests { .. } => queue::finish(&mut *tx, job, result).await?,
    };
    if ended == Settled::LeaseLost {
        return Ok(Settled::LeaseLost); // rolls back: whoever has the job does it all
    }
    match ending {
        Ending::GoesOn(after) => pass_on(&mut tx, lease, *after).await?,
        Ending::Rests { is_complete } => rest(&mut tx, lease, *is_complete).await?,
        Ending::Failed { error, rest } => {
            fail(&mut tx, lease, error, *rest).await?;
            queue::mark_told(&mut tx, job).await?;
        }
        Ending::Again { .. } => {}
    }
    for work in more {
        queue::push(&mut tx, work, Duration::ZERO).await?;
    }
    tx.commit().await?;
    Ok(Settled::Written(()))
}

/// Under the lease's epoch; false when that is not the lane's any more.
async fn write(
    tx: &mut PgConnection,
    lease: &Lease,
    progress: &Progress,
) -> Result<bool, sqlx::Error> {
    let written = sqlx::query!(
        "update lane set
             received = received + $3, stored = stored + $4, duplicate = duplicate + $5,
             rejected = rejected + $6, uploaded = uploaded + $7,
             upload_duplicate = upload_duplicate + $8, upload_rejected = upload_rejected + $9,
             unavailable = unavailable + $10, violations = violations + $11,
             saturated_seconds = saturated_seconds + $12,
             backfill_until = case when $13::bigint is null then backfill_until
                                   else least(backfill_until, greatest($13, backfill_target)) end,
             cursor_at = greatest(cursor_at, $14),
             window_seconds = coalesce($15, window_seconds),
             cheap_windows = coalesce($16, cheap_windows),
             upload_position = greatest(upload_position, $17),
             last_download_event_id = coalesce($18, last_download_event_id),
             last_upload_event_id = coalesce($19, last_upload_event_id),
             last_upload_at = case when $19::bytea is null then last_upload_at else now() end,
             method = coalesce($20, method),
             last_synced_at = now(), heartbeat_at = now()
         where id = $1 and lease_epoch = $2 and status = 'syncing'",
        lease.lane.id,
        lease.epoch,
        progress.received,
        progress.stored,
        progress.duplicate,
        progress.rejected,
        progress.uploaded,
        progress.upload_duplicate,
        progress.upload_rejected,
        progress.unavailable,
        progress.violations,
        progress.saturated_seconds,
        progress.backfill_until,
        progress.cursor_at,
        progress.window.map(|(seconds, _)| seconds),
        progress.window.map(|(_, cheap)| cheap),
        progress.upload_position,
        progress.last_download.map(|id| id.0.to_vec()),
        progress.last_upload.map(|id| id.0.to_vec()),
        progress.method,
    )
    .execute(tx)
    .await?;
    Ok(written.rows_affected() == 1)
}

/// The next job becomes the owner before anybody can see it.
async fn pass_on(tx: &mut PgConnection, lease: &Lease, after: Duration) -> Result<(), sqlx::Error> {
    let next = queue::push_lane(&mut *tx, lease.lane.id, lease.lane.kind, after).await?;
    // The key was taken by a job that somebody pushed meanwhile: that one goes on.
    let Some(next) = next else { return rest(tx, lease, false).await };
    sqlx::query!(
        "update lane set lease_owner = $3, consecutive_failures = 0
         where id = $1 and lease_epoch = $2",
        lease.lane.id,
        lease.epoch,
        next,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn rest(tx: &mut PgConnection, lease: &Lease, is_complete: bool) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set status = case when $3 then 'completed' else 'idle' end,
                lease_owner = null, consecutive_failures = 0
         where id = $1 and lease_epoch = $2",
        lease.lane.id,
        lease.epoch,
        is_complete,
    )
    .execute(tx)
    .await?;
    Ok(())
}

async fn fail(
    tx: &mut PgConnection,
    lease: &Lease,
    error: &str,
    rest: Duration,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set status = 'error', error_message = $3, failed_at = now(), lease_owner = null,
                consecutive_failures = consecutive_failures + 1,
                retry_at = now() + make_interval(
                    secs => least($4::float8 * 2::float8 ^ least(consecutive_failures, 20), 86400))
         where id = $1 and lease_epoch = $2",
        lease.lane.id,
        lease.epoch,
        one_line(error),
        rest.as_secs_f64(),
    )
    .execute(tx)
    .await?;
    Ok(())
}
