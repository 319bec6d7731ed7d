//! Settling: the progress of a lane, the state of the lane, the row of its job and the next job are
//! written in one transaction.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, PgPool};

use super::{Lease, Walked, attempt, gap};
use crate::{
    mirror::{
        event::{EventId, outgoing},
        work,
    },
    queue::{self, Job, Requeue, Requeued, Settled, one_line},
};

/// The length of a lane's next window, and what the lengths after it depend on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NextWindow {
    /// The length in seconds.
    pub seconds: i64,
    /// The number of easy windows in a row since the length has changed; below 0 if so many must come before it grows.
    pub easy: i32,
    /// The shortest length that the upstream has refused, in seconds; `None` if it refuses none.
    pub refused: Option<i64>,
}

/// The progress of a job that its lane does not have yet. Counts are added to the lane's. The
/// counters of events and uploads are not here: they are written together with the events and the
/// verdicts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Progress {
    /// Ids that the upstream listed and did not deliver.
    pub unavailable: i64,
    /// Events and answers that the upstream sent and were not asked for.
    pub violations: i64,
    /// Seconds that hold more events than a page.
    pub saturated_seconds: i64,
    /// History is complete from this second on. The lane's value never rises.
    pub backfill_until: Option<i64>,
    /// The upstream was asked for everything before this second. The lane's value never falls. The
    /// window that the lane had begun is finished.
    pub cursor_at: Option<i64>,
    /// How far a window is walked that the next job continues.
    pub walked: Option<Walked>,
    /// The length of the next window.
    pub window: Option<NextWindow>,
    /// Every event up to this position has a verdict. The lane's value never falls.
    pub upload_position: Option<i64>,
    /// An upload lane that is to rest looked for work up to this position. If there is work now, it
    /// goes on instead.
    pub upload_horizon: Option<i64>,
    /// The newest event received.
    pub last_download: Option<EventId>,
    /// How the window was done: `polling` or `negentropy`.
    pub method: Option<&'static str>,
    /// The finished windows, whose gaps replace those that the lane has there.
    pub finished: Vec<gap::Finished>,
}

impl Progress {
    /// Whether it tells of a sync: a failed attempt that only shortens the next window is none.
    fn is_sync(&self) -> bool {
        let rest = Self { window: None, finished: Vec::new(), ..*self };
        !self.finished.is_empty() || rest != Self::default()
    }
}

/// How a job ends.
#[derive(Debug, Clone)]
pub enum Ending {
    /// The lane continues with a new job, due after this delay.
    GoesOn(Duration),
    /// The lane rests until its next run.
    Rests {
        /// Whether history is complete: the lane is then `completed`, else `idle`.
        is_complete: bool,
    },
    /// The attempt failed and is spent; the same job is retried.
    Again {
        /// The delay of the retry.
        after: Duration,
        /// Why the attempt failed.
        error: String,
    },
    /// The lane is in error until its cool-down is over.
    Failed {
        /// Why the job failed.
        error: String,
        /// The cool-down after a first failure. Each further failure doubles it, up to a day.
        rest: Duration,
    },
}

/// Writes progress. Returns false if the lease is lost; then nothing was written.
pub async fn checkpoint(
    db: &PgPool,
    lease: &Lease,
    progress: &Progress,
) -> Result<bool, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let is_written = write(&mut tx, lease, progress, None).await?;
    tx.commit().await?;
    Ok(is_written)
}

/// Writes progress, and lets the lane rest with the status `rests`, if given. The lane's counts of gaps say whether
/// a finished window may replace any.
async fn write(
    tx: &mut PgConnection,
    lease: &Lease,
    progress: &Progress,
    rests: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let written = sqlx::query_scalar!(
        r#"update lane set
             unavailable = unavailable + $3, violations = violations + $4,
             saturated_seconds = saturated_seconds + $5,
             backfill_until = case when $6::bigint is null then backfill_until
                                   else least(backfill_until, greatest($6, backfill_target)) end,
             cursor_at = greatest(cursor_at, $7),
             window_seconds = coalesce($8, window_seconds),
             cheap_windows = coalesce($9, cheap_windows),
             window_refused = case when $8::bigint is null then window_refused else $18 end,
             upload_position = greatest(upload_position, $10),
             last_download_event_id = coalesce($11, last_download_event_id),
             method = coalesce($12, method),
             walk_since = case when $7::bigint is null then coalesce($13, walk_since) end,
             walk_until = case when $7::bigint is null then coalesce($14, walk_until) end,
             walk_at = case when $7::bigint is null then coalesce($15, walk_at) end,
             walk_cursor = case when $7::bigint is null then coalesce($16, walk_cursor) end,
             last_synced_at = case when $17 then now() else last_synced_at end, heartbeat_at = now(),
             status = coalesce($19, status),
             lease_owner = case when $19::text is null then lease_owner end,
             consecutive_failures = case when $19::text is null then consecutive_failures else 0 end
         where id = $1 and lease_epoch = $2 and status = 'syncing'
         returning gap_seconds + gap_ids + gap_spans > 0 as "has_gaps!""#,
        lease.lane.id,
        lease.epoch,
        progress.unavailable,
        progress.violations,
        progress.saturated_seconds,
        progress.backfill_until,
        progress.cursor_at,
        progress.window.map(|next| next.seconds),
        progress.window.map(|next| next.easy),
        progress.upload_position,
        progress.last_download.map(|id| id.0.to_vec()),
        progress.method,
        progress.walked.map(|walked| walked.since),
        progress.walked.map(|walked| walked.until),
        progress.walked.map(|walked| walked.at),
        progress.walked.map(|walked| walked.cursor),
        progress.is_sync(),
        progress.window.and_then(|next| next.refused),
        rests,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let Some(has_gaps) = written else { return Ok(false) };
    for finished in progress.finished.iter().filter(|one| has_gaps || !one.gaps.is_empty()) {
        gap::replace(tx, lease.lane.id, finished).await?;
    }
    Ok(true)
}

/// Ends a job. Writes its progress, the lane's state, the job's row and the next job, all or
/// nothing. Repeating the call is harmless.
pub async fn settle(
    db: &PgPool,
    job: &Job,
    lease: &Lease,
    progress: &Progress,
    ending: &Ending,
    result: &Value,
) -> Result<Settled<()>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    // First of all, because the store's lock comes before the lane's row.
    let has_work = match progress.upload_horizon {
        Some(horizon) => outgoing::has_work(&mut tx, lease, horizon).await?,
        None => false,
    };
    let rests = match ending {
        Ending::Rests { is_complete } if !has_work => Some(resting(*is_complete)),
        _ => None,
    };
    if !write(&mut tx, lease, progress, rests).await? {
        return Ok(Settled::LeaseLost);
    }
    let Settled::Written(due) = end_job(&mut tx, job, ending, result).await? else {
        return Ok(Settled::LeaseLost); // rolls back: the worker that has the job settles it
    };
    match ending {
        Ending::GoesOn(after) => {
            attempt::succeeded(&mut *tx, lease).await?;
            pass_on(&mut tx, lease, *after).await?;
        }
        Ending::Rests { .. } => {
            attempt::succeeded(&mut *tx, lease).await?;
            if has_work {
                pass_on(&mut tx, lease, Duration::ZERO).await?;
            }
        }
        Ending::Failed { error, rest } => {
            attempt::failed(&mut *tx, lease, job, error, None).await?;
            fail(&mut *tx, lease, error, *rest).await?;
            // The lane in error is shown to the operator; its killed job need not be.
            queue::mark_seen(&mut *tx, std::slice::from_ref(&job.id)).await?;
        }
        Ending::Again { error, .. } => attempt::failed(&mut *tx, lease, job, error, due).await?,
    }
    tx.commit().await?;
    Ok(Settled::Written(()))
}

/// Ends the job's row. Returns when the next attempt is due, if there is one.
async fn end_job(
    tx: &mut PgConnection,
    job: &Job,
    ending: &Ending,
    result: &Value,
) -> Result<Settled<Option<DateTime<Utc>>>, sqlx::Error> {
    let ended = match ending {
        Ending::Again { after, error } => {
            let requeued = queue::requeue(tx, job, &Requeue::retry(*after, error)).await?;
            return Ok(requeued.map(|requeued| match requeued {
                Requeued::Waits(due) => Some(due),
                Requeued::Superseded => None,
            }));
        }
        Ending::Failed { error, .. } => queue::kill(tx, job, error).await?,
        Ending::GoesOn(_) | Ending::Rests { .. } => queue::finish(tx, job, result).await?,
    };
    Ok(ended.map(|()| None))
}

/// Enqueues the next job and makes it the lane's owner before other transactions can see it.
async fn pass_on(tx: &mut PgConnection, lease: &Lease, after: Duration) -> Result<(), sqlx::Error> {
    let next = work::push_lane(&mut *tx, lease.lane.id, lease.lane.kind, after).await?;
    // Another transaction has enqueued a job with the lane's key: that job continues.
    let Some(next) = next else { return rest(tx, lease).await };
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

/// Returns the status of a lane that rests.
fn resting(is_complete: bool) -> &'static str {
    if is_complete { "completed" } else { "idle" }
}

async fn rest(db: impl PgExecutor<'_>, lease: &Lease) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set status = $3, lease_owner = null, consecutive_failures = 0
         where id = $1 and lease_epoch = $2",
        lease.lane.id,
        lease.epoch,
        resting(false),
    )
    .execute(db)
    .await?;
    Ok(())
}

async fn fail(
    db: impl PgExecutor<'_>,
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
    .execute(db)
    .await?;
    Ok(())
}
