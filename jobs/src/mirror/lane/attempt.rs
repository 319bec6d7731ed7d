//! Failed attempts: why a lane is retrying. They stay on the lane until an attempt succeeds, so that a
//! lane that retries does not look healthy.

use chrono::{DateTime, Utc};
use sqlx::PgExecutor;

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
