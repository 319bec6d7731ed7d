//! Recurring jobs as rows: when each ran last, and when it runs next.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

/// A recurring job.
#[derive(Debug, Clone, Serialize)]
pub struct Recurring {
    /// Its name; of some, also their queue.
    pub queue: String,
    /// When it runs: a cron expression of six fields, in UTC.
    pub expression: String,
    /// Its next tick, as the last process that looked knew it.
    pub next_at: Option<DateTime<Utc>>,
    /// Its last start.
    pub last_started_at: Option<DateTime<Utc>>,
    /// Its last end.
    pub last_ended_at: Option<DateTime<Utc>>,
    /// Why its last run failed, if it did.
    pub last_error: Option<String>,
}

/// Every recurring job, the next first.
///
/// # Errors
/// The database did not answer.
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Recurring>, sqlx::Error> {
    sqlx::query_as!(
        Recurring,
        "select queue, expression, next_at, last_started_at, last_ended_at, last_error
         from recurring_job order by next_at nulls last, queue"
    )
    .fetch_all(db)
    .await
}

/// Writes when a recurring job runs next.
///
/// # Errors
/// The database did not answer.
pub async fn plan(
    db: impl PgExecutor<'_>,
    queue: &str,
    expression: &str,
    next_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into recurring_job as r (queue, expression, next_at) values ($1, $2, $3)
         on conflict (queue) do update set expression = excluded.expression, next_at = excluded.next_at
         where r.next_at is distinct from excluded.next_at or r.expression <> excluded.expression",
        queue,
        expression,
        next_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes what does not recur any more off the list.
///
/// # Errors
/// The database did not answer.
pub async fn forget_others(db: impl PgExecutor<'_>, names: &[&str]) -> Result<(), sqlx::Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    sqlx::query!("delete from recurring_job where queue <> all($1)", &names).execute(db).await?;
    Ok(())
}

/// Notes the start of a run.
///
/// # Errors
/// The database did not answer.
pub async fn started(db: impl PgExecutor<'_>, queue: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update recurring_job set last_started_at = now() where queue = $1", queue)
        .execute(db)
        .await?;
    Ok(())
}

/// Notes the end of a run; `error` when it failed.
///
/// # Errors
/// The database did not answer.
pub async fn ended(
    db: impl PgExecutor<'_>,
    queue: &str,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update recurring_job set last_ended_at = now(), last_error = $2 where queue = $1",
        queue,
        error.map(crate::queue::one_line),
    )
    .execute(db)
    .await?;
    Ok(())
}
