//! Recurring jobs as rows: when each ran last, and when it runs next. The rows are for people; a run
//! does not depend on them.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgExecutor, PgPool};
use ulid::Ulid;

pub use super::enqueue::{Tick, tick};
use super::{
    Job, NewJob, Settled,
    fetch::start_job,
    finish::{End, end_job},
    one_line,
};

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
    /// The queue of its runs, if the process that started last has told it.
    pub queue: Option<String>,
}

/// A run of a recurring job that has ended.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The name of the recurring job.
    pub name: String,
    /// When the run started.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
    /// Why it failed, if it did.
    pub error: Option<String>,
}

/// Returns every recurring job, the next one first.
///
/// # Errors
/// See [`queue`](super).
pub async fn list(db: impl PgExecutor<'_>) -> Result<Vec<Recurring>, sqlx::Error> {
    sqlx::query_as!(
        Recurring,
        "select name, wing, expression, next_at, last_started_at, last_ended_at, last_error, queue
         from recurring_job order by next_at nulls last, name"
    )
    .fetch_all(db)
    .await
}

/// Stores the job that a run of a recurring job enqueues, for [`run_now`].
///
/// # Errors
/// See [`queue`](super).
pub async fn remember(
    db: impl PgExecutor<'_>,
    name: &str,
    job: &NewJob,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update recurring_job set queue = $2, payload = $3, priority = $4, max_attempts = $5
         where name = $1
           and (queue, payload, priority, max_attempts) is distinct from ($2, $3, $4, $5)",
        name,
        job.queue,
        job.payload,
        job.priority,
        job.max_attempts,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Enqueues a run of a recurring job, due now. Returns the id of its job; `None` if no process has told what a
/// run enqueues, or if its queue is not one of `queues`.
///
/// # Errors
/// See [`queue`](super).
pub async fn run_now(
    db: &PgPool,
    name: &str,
    queues: &[&'static str],
) -> Result<Option<String>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select queue as "queue!", payload as "payload!", priority as "priority!", max_attempts as "max_attempts!"
           from recurring_job where name = $1 and queue is not null"#,
        name,
    );
    let Some(row) = row.fetch_optional(db).await? else { return Ok(None) };
    let Some(queue) = queues.iter().find(|queue| **queue == row.queue) else {
        return Ok(None);
    };
    let job = NewJob::stored(queue, row.payload)
        .priority(row.priority)
        .max_attempts(row.max_attempts)
        .key(format!("{name}@asked-{}", Ulid::generate()));
    Ok(super::enqueue(db, &[job]).await?.pop())
}

/// Returns the last `each` runs of each recurring job, newest first.
///
/// # Errors
/// See [`queue`](super).
pub async fn runs(db: impl PgExecutor<'_>, each: i64) -> Result<Vec<Run>, sqlx::Error> {
    sqlx::query_as!(
        Run,
        r#"select run.name, run.started_at, run.ended_at, run.error::text as error
           from recurring_job job, lateral (
               select id, name, started_at, ended_at, error from recurring_run r
               where r.name = job.name order by id desc limit $1) run
           order by run.id desc"#,
        each,
    )
    .fetch_all(db)
    .await
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

/// Marks a fetched run of the recurring job `name` as running, and notes its start on the schedule.
///
/// # Errors
/// See [`queue`](super); then neither was stored.
pub async fn start(
    db: impl PgExecutor<'_>,
    job: &Job,
    name: &str,
) -> Result<Settled<()>, sqlx::Error> {
    let started = start_job!(
        job,
        "with started as (",
        "returning id), noted as (
             update recurring_job set last_started_at = now()
             where name = $4 and exists (select from started))
         select count(*) as \"started!\" from started",
        name
    );
    Ok(Settled::of(started.fetch_one(db).await?.started.unsigned_abs()))
}

/// Ends a run of the recurring job `name`: as `Done` with its result, or as `Killed` with its error. Notes the end on
/// the schedule. Killed runs from before a success need no attention any more.
///
/// # Errors
/// See [`queue`](super); then neither was stored.
pub async fn end(
    db: impl PgExecutor<'_>,
    job: &Job,
    name: &str,
    result: Result<&Value, &str>,
) -> Result<Settled<()>, sqlx::Error> {
    let error = result.err().map(one_line);
    let end = result.map_or_else(End::killed, End::done);
    let ended = end_job!(
        job,
        end,
        "with ended as (",
        "returning id), noted as (
             update recurring_job
             set last_ended_at = now(), last_error = $8::text,
                 last_succeeded_at = case when $8::text is null then now() else last_succeeded_at end
             where name = $7 and exists (select from ended))
         select count(*) as \"ended!\" from ended",
        name,
        error
    );
    Ok(Settled::of(ended.fetch_one(db).await?.ended.unsigned_abs()))
}
