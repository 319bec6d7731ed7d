//! How many jobs of a queue each process runs at the same time, if an operator has set it.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

/// The most jobs of a queue that a process runs at the same time.
pub const MOST_AT_ONCE: i32 = 1000;

/// A number of jobs that an operator has set for every process.
#[derive(Debug, Clone, Serialize)]
pub struct Scaled {
    /// The name of the queue.
    pub queue: String,
    /// The jobs that each process runs at the same time, from 1 to [`MOST_AT_ONCE`].
    pub jobs: i32,
    /// When it was set.
    pub set_at: DateTime<Utc>,
    /// The operator that set it.
    pub set_by: String,
    /// Why.
    pub reason: Option<String>,
}

/// Sets how many jobs of a queue each process runs at the same time; every process follows within 5 s. Running jobs
/// are not stopped. The schema refuses a number that is not from 1 to [`MOST_AT_ONCE`].
///
/// # Errors
/// See [`queue`](super).
pub async fn scale(
    db: impl PgExecutor<'_>,
    queue: &str,
    jobs: i32,
    by: &str,
    reason: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into queue_concurrency (queue, jobs, set_by, reason) values ($1, $2, $3, $4)
         on conflict (queue) do update
         set jobs = excluded.jobs, set_at = now(), set_by = excluded.set_by, reason = excluded.reason",
        queue,
        jobs,
        by,
        reason,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Gives a queue back the number that each process is configured with. Returns false if none was set.
///
/// # Errors
/// See [`queue`](super).
pub async fn unscale(db: impl PgExecutor<'_>, queue: &str) -> Result<bool, sqlx::Error> {
    let unset = sqlx::query!("delete from queue_concurrency where queue = $1", queue);
    Ok(unset.execute(db).await?.rows_affected() == 1)
}

/// Returns the numbers that operators have set.
///
/// # Errors
/// See [`queue`](super).
pub async fn scaled(db: impl PgExecutor<'_>) -> Result<Vec<Scaled>, sqlx::Error> {
    sqlx::query_as!(
        Scaled,
        "select queue, jobs, set_at, set_by, reason from queue_concurrency order by queue"
    )
    .fetch_all(db)
    .await
}
