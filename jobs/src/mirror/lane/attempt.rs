//! Failed attempts: why a lane is retrying. They stay on the lane until an attempt succeeds, so that a
//! lane that retries does not look healthy.

use std::time::Duration;

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;
use uuid::Uuid;

use super::Lease;
use crate::queue::{Job, one_line};

/// Stores that an attempt failed, and when the next one is due; `None` if the lane gives up.
pub(super) async fn failed(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    job: &Job,
    error: &str,
    next: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set last_error = $3, last_error_at = now(), next_attempt_at = $4,
                failed_attempts = $5, allowed_attempts = $6
         where id = $1 and lease_epoch = $2",
        lease.lane.id,
        lease.epoch,
        one_line(error),
        next,
        job.place(),
        job.allowed_attempts(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets failed attempts, because one succeeded. The lane of a first attempt has none to forget.
pub(super) async fn succeeded(db: impl PgExecutor<'_>, lease: &Lease) -> Result<(), sqlx::Error> {
    if lease.lane.last_error.is_none() {
        return Ok(());
    }
    sqlx::query!(
        "update lane set last_error = null, last_error_at = null, next_attempt_at = null,
                failed_attempts = 0
         where id = $1 and lease_epoch = $2",
        lease.lane.id,
        lease.epoch,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A failed attempt to keep a standing subscription.
#[derive(Debug, Clone, Copy)]
pub struct LiveFailure<'a> {
    /// Why it failed.
    pub error: &'a str,
    /// The number of the attempt, from 1, and how many there are before a longer pause.
    pub attempt: (u64, u64),
    /// The delay of the next attempt.
    pub wait: Duration,
}

/// Stores that a standing subscription failed. After the last attempt the lane counts as failed.
pub async fn live_failed(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    failure: LiveFailure<'_>,
) -> Result<(), sqlx::Error> {
    let number = |attempt: u64| i32::try_from(attempt).unwrap_or(i32::MAX);
    let (attempt, allowed) = failure.attempt;
    sqlx::query!(
        "update lane set last_error = $2, last_error_at = now(),
                next_attempt_at = now() + make_interval(secs => $3),
                failed_attempts = $4::int, allowed_attempts = $5::int,
                consecutive_failures = consecutive_failures + ($4::int >= $5::int)::int
         where id = $1 and lane = 'live'",
        lane,
        one_line(failure.error),
        failure.wait.as_secs_f64(),
        number(attempt),
        number(allowed),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets the failures of a standing subscription, because the upstream has confirmed it.
pub async fn live_confirmed(db: impl PgExecutor<'_>, lane: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set last_error = null, last_error_at = null, next_attempt_at = null,
                failed_attempts = 0, consecutive_failures = 0
         where id = $1 and lane = 'live' and last_error is not null",
        lane,
    )
    .execute(db)
    .await?;
    Ok(())
}
