//! Fetching: a worker takes due jobs, and starts them one by one.

use std::time::Duration;

use sqlx::PgExecutor;

use super::{Job, RESCUED, Settled};

/// Takes up to `limit` due jobs of a queue for a worker, by priority and then by age. Returns none
/// while the queue is paused. It costs what its rows cost, however many jobs have ended: see [`low_water`].
///
/// # Errors
/// See the module. The jobs were not taken, or will be rescued.
///
/// [`low_water`]: super::low_water
pub async fn fetch(
    db: impl PgExecutor<'_>,
    worker: &str,
    queue: &str,
    limit: i32,
) -> Result<Vec<Job>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"select id as "id!", job as "payload!", attempts as "attempts!", max_attempts as "max_attempts!",
                  crashes as "crashes!", error, waited as "waited!"
           from fetch_jobs($1, $2, $3)"#,
        worker,
        queue,
        limit,
    )
    .fetch_all(db)
    .await?;
    let jobs = rows.into_iter().map(|row| Job {
        id: row.id,
        payload: row.payload,
        attempt: row.attempts.saturating_add(1),
        max_attempts: row.max_attempts,
        crashes: row.crashes,
        last_error: row.error.filter(|error| error != RESCUED),
        queue: queue.to_owned(),
        worker: worker.to_owned(),
        waited: Duration::from_secs_f64(row.waited),
    });
    Ok(jobs.collect())
}

/// The statement that marks a fetched job as running, between `$head` and `$tail`.
macro_rules! start_job {
    ($job:expr, $head:literal, $tail:literal $(, $argument:expr)*) => {{
        let job: &Job = $job;
        sqlx::query!(
            $head
                + "update apalis.jobs set status = 'Running', lock_at = now()
                   where id = $1 and coalesce(lock_by, '') = $2 and attempts = $3
                     and coalesce(status, '') = 'Queued' "
                + $tail,
            job.id,
            job.worker,
            job.attempt - 1,
            $($argument),*
        )
    }};
}
pub(super) use start_job;

/// Marks a fetched job as running.
///
/// # Errors
/// See the module.
pub async fn start(db: impl PgExecutor<'_>, job: &Job) -> Result<Settled<()>, sqlx::Error> {
    let started = start_job!(job, "", "").execute(db).await?;
    Ok(Settled::of(started.rows_affected()))
}

/// Takes the key from a running job, so that work which comes while it runs gets a job of its own. The
/// job remembers its key: it takes it back if it goes back to the queue.
///
/// # Errors
/// See the module.
pub async fn free_key(db: impl PgExecutor<'_>, job: &Job) -> Result<Settled<()>, sqlx::Error> {
    let freed = sqlx::query!(
        "update apalis.jobs
         set idempotency_key = null,
             metadata = coalesce(metadata, ''::hstore) || hstore('key', idempotency_key)
         where id = $1 and coalesce(lock_by, '') = $2 and attempts = $3
           and coalesce(status, '') in ('Queued', 'Running') and idempotency_key is not null",
        job.id,
        job.worker,
        job.attempt - 1,
    )
    .execute(db)
    .await?;
    Ok(Settled::of(freed.rows_affected()))
}
