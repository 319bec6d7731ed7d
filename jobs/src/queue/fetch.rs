//! Fetching: a worker takes due jobs, and starts them one by one.

use std::time::Duration;

use sqlx::PgExecutor;

use super::{Job, PRIORITIES, RESCUED, Settled};

/// How far back a fetch looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Every due job.
    All,
    /// Jobs that became due within the last [`RECENT`]. While a long transaction keeps PostgreSQL from
    /// vacuuming, index entries of finished jobs pile up before those of due jobs; this passes them
    /// by.
    Recent,
}

/// The reach of [`Depth::Recent`].
pub const RECENT: Duration = Duration::from_mins(1);

/// The columns of a fetched job.
struct Fetched {
    id: String,
    payload: Vec<u8>,
    attempts: i32,
    max_attempts: i32,
    crashes: i32,
    error: Option<String>,
    waited: f64,
}

/// Takes up to `limit` due jobs of a queue for a worker, by priority and then by age. Returns none
/// while the queue is paused.
///
/// # Errors
/// See the module. The jobs were not taken, or will be rescued.
pub async fn fetch(
    db: impl PgExecutor<'_>,
    worker: &str,
    queue: &str,
    limit: i32,
    depth: Depth,
) -> Result<Vec<Job>, sqlx::Error> {
    let rows = match depth {
        Depth::All => fetch_all(db, worker, queue, limit).await?,
        Depth::Recent => fetch_recent(db, worker, queue, limit).await?,
    };
    let job = |row: Fetched| Job {
        id: row.id,
        payload: row.payload,
        attempt: row.attempts.saturating_add(1),
        max_attempts: row.max_attempts,
        crashes: row.crashes,
        last_error: row.error.filter(|error| error != RESCUED),
        queue: queue.to_owned(),
        worker: worker.to_owned(),
        waited: Duration::from_secs_f64(row.waited),
    };
    Ok(rows.into_iter().map(job).collect())
}

/// With apalis's own function.
async fn fetch_all(
    db: impl PgExecutor<'_>,
    worker: &str,
    queue: &str,
    limit: i32,
) -> Result<Vec<Fetched>, sqlx::Error> {
    sqlx::query_as!(
        Fetched,
        r#"with going as materialized (
               -- The fetch need not be on disk before the jobs start: if a crash loses it, they are fetched
               -- again, and their late start finds another holder.
               select $1::text as worker, set_config('synchronous_commit', 'off', true)
               where not exists (select from paused_queue where queue = $2)
           )
           select job.id as "id!", job.job as "payload!", job.attempts as "attempts!",
                  job.max_attempts as "max_attempts!", crashes_of(job.metadata) as "crashes!",
                  job.last_result->>'Err' as error,
                  greatest(extract(epoch from now() - job.run_at), 0)::float8 as "waited!"
           from going, apalis.get_jobs(going.worker, $2, $3) job
           order by job.priority desc, job.run_at"#,
        worker,
        queue,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Like apalis's function, but with one range of the queue's index per priority.
async fn fetch_recent(
    db: impl PgExecutor<'_>,
    worker: &str,
    queue: &str,
    limit: i32,
) -> Result<Vec<Fetched>, sqlx::Error> {
    sqlx::query_as!(
        Fetched,
        r#"with quick as materialized (
               select set_config('synchronous_commit', 'off', true) -- as in `fetch_all`
           ), due as materialized (
               select job.id
               from quick, unnest($4::int[]) with ordinality as level (priority, place), lateral (
                   select id, run_at from apalis.jobs
                   where job_type = $2 and priority = level.priority
                     and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
                     and run_at < now() and run_at >= now() - make_interval(secs => $5)
                   order by run_at
                   limit $3
                   for update skip locked) job
               where not exists (select from paused_queue where queue = $2)
               order by level.place, job.run_at
               limit $3
           ), taken as (
               update apalis.jobs job
               set status = 'Queued', lock_by = $1, lock_at = now()
               from due where job.id = due.id
               returning job.id, job.job, job.attempts, job.max_attempts, job.priority, job.run_at,
                         job.metadata, job.last_result
           )
           select id as "id!", job as "payload!", attempts as "attempts!",
                  max_attempts as "max_attempts!", crashes_of(metadata) as "crashes!",
                  last_result->>'Err' as error,
                  greatest(extract(epoch from now() - run_at), 0)::float8 as "waited!"
           from taken order by priority desc, run_at"#,
        worker,
        queue,
        i64::from(limit),
        &PRIORITIES,
        RECENT.as_secs_f64(),
    )
    .fetch_all(db)
    .await
}

/// Marks a fetched job as running.
///
/// # Errors
/// See the module.
pub async fn start(db: impl PgExecutor<'_>, job: &Job) -> Result<Settled<()>, sqlx::Error> {
    let started = sqlx::query!(
        "update apalis.jobs set status = 'Running', lock_at = now()
         where id = $1 and lock_by = $2 and attempts = $3 and status = 'Queued'",
        job.id,
        job.worker,
        job.attempt - 1,
    )
    .execute(db)
    .await?;
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
         where id = $1 and lock_by = $2 and attempts = $3 and status in ('Queued', 'Running') and idempotency_key is not null",
        job.id,
        job.worker,
        job.attempt - 1,
    )
    .execute(db)
    .await?;
    Ok(Settled::of(freed.rows_affected()))
}
