//! Recurring jobs as rows: when each ran last, and when it runs next. The rows are for people; a run
//! does not depend on them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;

use super::one_line;

/// A recurring job.
#[derive(Debug, Clone, Serialize)]
pub struct Recurring {
    /// The name, unique over all wings.
    pub name: String,
    /// The wing that the job belongs to.
    pub wing: String,
    /// When it runs: a cron expression of six fields, in UTC.
    pub expression: String,
    /// The next run, as the process that looked last computed it.
    pub next_at: Option<DateTime<Utc>>,
    /// When the last run started.
    pub last_started_at: Option<DateTime<Utc>>,
    /// When the last run ended.
    pub last_ended_at: Option<DateTime<Utc>>,
    /// Why the last run failed, if it did.
    pub last_error: Option<String>,
}

/// Returns every recurring job, the next one first.
///
/// # Errors
/// See [`queue`](super).
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Recurring>, sqlx::Error> {
    sqlx::query_as!(
        Recurring,
        "select name, wing, expression, next_at, last_started_at, last_ended_at, last_error
         from recurring_job order by next_at nulls last, name"
    )
    .fetch_all(db)
    .await
}

/// Stores when a recurring job runs next.
///
/// # Errors
/// See [`queue`](super).
pub async fn plan(
    db: impl PgExecutor<'_>,
    wing: &str,
    name: &str,
    expression: &str,
    next_at: Option<DateTime<Utc>>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into recurring_job as r (name, wing, expression, next_at) values ($1, $2, $3, $4)
         on conflict (name) do update
         set wing = excluded.wing, expression = excluded.expression, next_at = excluded.next_at
         where (r.wing, r.expression, r.next_at)
               is distinct from (excluded.wing, excluded.expression, excluded.next_at)",
        name,
        wing,
        expression,
        next_at,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Removes the rows of a wing's recurring jobs that are not among `names`.
///
/// # Errors
/// See [`queue`](super).
pub async fn forget_others(
    db: impl PgExecutor<'_>,
    wing: &str,
    names: &[&str],
) -> Result<(), sqlx::Error> {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    sqlx::query!("delete from recurring_job where wing = $1 and name <> all($2)", wing, &names)
        .execute(db)
        .await?;
    Ok(())
}

/// Records the start of a run.
///
/// # Errors
/// See [`queue`](super).
pub async fn started(db: impl PgExecutor<'_>, name: &str) -> Result<(), sqlx::Error> {
    sqlx::query!("update recurring_job set last_started_at = now() where name = $1", name)
        .execute(db)
        .await?;
    Ok(())
}

/// Records the end of a run, with its error if it failed. Killed runs from before a success need no
/// attention any more.
///
/// # Errors
/// See [`queue`](super).
pub async fn ended(
    db: impl PgExecutor<'_>,
    name: &str,
    error: Option<&str>,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update recurring_job
         set last_ended_at = now(), last_error = $2::text,
             last_succeeded_at = case when $2::text is null then now() else last_succeeded_at end
         where name = $1",
        name,
        error.map(one_line),
    )
    .execute(db)
    .await?;
    Ok(())
}
