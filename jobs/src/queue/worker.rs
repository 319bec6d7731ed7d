//! What a worker does with the queue: appear, stay alive, fetch, give back.

use std::time::Duration;

use sqlx::PgExecutor;

use super::Job;

/// Makes a worker known; its name is new at every start, so that nobody takes its jobs for those
/// of its predecessor. `process` tells people where it runs.
///
/// # Errors
/// The database did not answer, or the name is taken.
pub async fn register(
    db: impl PgExecutor<'_>,
    worker: &str,
    queue: &str,
    process: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "insert into apalis.workers (id, worker_type, storage_name, layers, last_seen, started_at)
         values ($1, $2, 'PostgresStorage', $3, now(), now())",
        worker,
        queue,
        process,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Says that a worker lives. False when it is not registered any more, so that it must start anew.
///
/// # Errors
/// The database did not answer.
pub async fn heartbeat(db: impl PgExecutor<'_>, worker: &str) -> Result<bool, sqlx::Error> {
    let beat = sqlx::query!("update apalis.workers set last_seen = now() where id = $1", worker)
        .execute(db)
        .await?;
    Ok(beat.rows_affected() == 1)
}

/// How far back a fetch looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// At all that is due.
    All,
    /// At what became due within the last [`RECENT`]. While some transaction keeps PostgreSQL from
    /// cleaning up, the entries of finished jobs pile up before the due ones: this passes them by.
    Recent,
}

/// See [`Depth::Recent`].
pub const RECENT: Duration = Duration::from_mins(1);

/// What a fetch reads of a job.
struct Fetched {
    id: String,
    payload: Vec<u8>,
    attempts: i32,
    waited: f64,
}

/// Takes up to `limit` due jobs of a queue for a worker, by priority and then by age; none while the
/// queue is paused.
///
/// # Errors
/// The database did not answer; then nothing was taken, or what was taken is rescued.
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
        queue: queue.to_owned(),
        worker: worker.to_owned(),
        waited: Duration::from_secs_f64(row.waited),
    };
    Ok(rows.into_iter().map(job).collect())
}

/// By apalis's own function.
async fn fetch_all(
    db: impl PgExecutor<'_>,
    worker: &str,
    queue: &str,
    limit: i32,
) -> Result<Vec<Fetched>, sqlx::Error> {
    sqlx::query_as!(
        Fetched,
        r#"with going as materialized (
               select $1::text as worker where not exists (select from paused_queue where queue = $2)
           )
           select job.id as "id!", job.job as "payload!", job.attempts as "attempts!",
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

/// As apalis's function would, of the priorities that we use: each is a range of the queue's index.
async fn fetch_recent(
    db: impl PgExecutor<'_>,
    worker: &str,
    queue: &str,
    limit: i32,
) -> Result<Vec<Fetched>, sqlx::Error> {
    sqlx::query_as!(
        Fetched,
        r#"with due as materialized (
               select job.id
               from unnest($4::int[]) with ordinality as level (priority, place), lateral (
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
               returning job.id, job.job, job.attempts, job.priority, job.run_at
           )
           select id as "id!", job as "payload!", attempts as "attempts!",
                  greatest(extract(epoch from now() - run_at), 0)::float8 as "waited!"
           from taken order by priority desc, run_at"#,
        worker,
        queue,
        i64::from(limit),
        &super::PRIORITIES,
        RECENT.as_secs_f64(),
    )
    .fetch_all(db)
    .await
}

/// Gives back the jobs that a worker fetched and did not start, attempts unchanged: they hold
/// their keys still.
///
/// # Errors
/// The database did not answer; then they are rescued later.
pub async fn release(db: impl PgExecutor<'_>, worker: &str) -> Result<u64, sqlx::Error> {
    let released = sqlx::query!(
        "update apalis.jobs set status = 'Pending', lock_by = null, lock_at = null
         where lock_by = $1 and status = 'Queued'",
        worker,
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}

/// Takes an ended worker off the list, unless a job of its still runs.
///
/// # Errors
/// The database did not answer; then pruning does it.
pub async fn unregister(db: impl PgExecutor<'_>, worker: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "delete from apalis.workers worker
         where id = $1 and not exists (select from apalis.jobs where lock_by = worker.id)",
        worker,
    )
    .execute(db)
    .await?;
    Ok(())
}
