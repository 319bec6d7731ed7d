//! Pausing: workers fetch nothing from a paused queue. Fetched jobs go on; new jobs wait.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

use super::CHANNEL;

/// The longest reason of an operator, in characters.
pub const LONGEST_REASON: usize = 300;

/// A paused queue.
#[derive(Debug, Clone, Serialize)]
pub struct Paused {
    /// The name of the queue.
    pub queue: String,
    /// When it was paused.
    pub paused_at: DateTime<Utc>,
    /// The operator that paused it.
    pub paused_by: String,
    /// Why it was paused.
    pub reason: Option<String>,
}

/// Pauses a queue for every process until it is resumed. Returns false if it was paused already. `reason` has 1 to
/// [`LONGEST_REASON`] characters; the schema refuses others.
///
/// # Errors
/// See [`queue`](super).
pub async fn pause(
    db: impl PgExecutor<'_>,
    queue: &str,
    by: &str,
    reason: Option<&str>,
) -> Result<bool, sqlx::Error> {
    let paused = sqlx::query!(
        "insert into paused_queue (queue, paused_by, reason) values ($1, $2, $3) on conflict do nothing",
        queue,
        by,
        reason,
    )
    .execute(db)
    .await?;
    Ok(paused.rows_affected() == 1)
}

/// Resumes a queue, and tells workers that jobs may be due. Returns false if it was not paused.
///
/// # Errors
/// See [`queue`](super).
pub async fn resume(db: impl PgExecutor<'_>, queue: &str) -> Result<bool, sqlx::Error> {
    let resumed = sqlx::query!(
        r#"with resumed as (delete from paused_queue where queue = $1 returning queue)
           select pg_notify($2, json_build_object('job_type', queue)::text) is null as told from resumed"#,
        queue,
        CHANNEL,
    );
    Ok(resumed.fetch_optional(db).await?.is_some())
}

/// Returns the paused queues.
///
/// # Errors
/// See [`queue`](super).
pub async fn paused(db: impl PgExecutor<'_>) -> Result<Vec<Paused>, sqlx::Error> {
    sqlx::query_as!(
        Paused,
        "select queue, paused_at, paused_by, reason from paused_queue order by queue"
    )
    .fetch_all(db)
    .await
}
