//! Workers: registration, heartbeats, and the list that people read.

use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use super::{DEAD_AFTER, Guard, Job, Requeue, requeue_all};

/// Registers a worker. The name must be new at every start, so that the jobs of its predecessor are not
/// taken for its own. `process` tells people where the worker runs.
///
/// # Errors
/// See the module; also a unique violation if the name is taken.
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

/// A worker that lives.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Alive {
    /// The name.
    pub id: String,
    /// Whether its heartbeat is stored; false if a transaction holds the worker's row.
    pub has_beaten: bool,
}

/// Sends the heartbeats of workers, and returns those that live. The others count as dead or are not registered
/// any more: their jobs may have been rescued, so they must register under new names.
///
/// # Errors
/// See the module.
pub async fn heartbeat(
    db: impl PgExecutor<'_>,
    workers: &[String],
) -> Result<Vec<Alive>, sqlx::Error> {
    sqlx::query_as!(
        Alive,
        r#"with free as (
               -- A row that someone holds must not stop the others; it has its turn in 5 s.
               select id from apalis.workers
               where id = any($1) and last_seen > now() - make_interval(secs => $2)
               for no key update skip locked
           ), beaten as (
               update apalis.workers worker set last_seen = now()
               from free where worker.id = free.id returning worker.id
           )
           select id as "id!", exists (select from beaten where beaten.id = worker.id) as "has_beaten!"
           from apalis.workers worker
           where id = any($1) and last_seen > now() - make_interval(secs => $2)"#,
        workers,
        DEAD_AFTER.as_secs_f64(),
    )
    .fetch_all(db)
    .await
}

/// Counts the workers of a queue that died within `young` of their start, in the last five minutes. A worker
/// that ended in order is not counted, because it removed itself. `host` is the part of
/// [`Worker::process`] before the process id.
///
/// # Errors
/// See the module.
pub async fn died_young(
    db: impl PgExecutor<'_>,
    queue: &str,
    host: &str,
    young: Duration,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select count(*) as "died!" from apalis.workers
           where worker_type = $1 and (layers = $2 or starts_with(layers, $2 || ':'))
             and started_at > now() - interval '5 minutes'
             and last_seen < started_at + make_interval(secs => $3)
             -- Longer than the five seconds between two heartbeats.
             and last_seen < now() - interval '7 s'"#,
        queue,
        host,
        young.as_secs_f64(),
    )
    .fetch_one(db)
    .await
}

/// Puts back the jobs that a worker fetched and did not start. Returns how many.
///
/// # Errors
/// See the module; then the jobs are rescued later.
pub async fn release(db: &PgPool, worker: &str) -> Result<usize, sqlx::Error> {
    let fetched = sqlx::query!(
        "select id, attempts from apalis.jobs where lock_by = $1 and status = 'Queued'",
        worker,
    )
    .fetch_all(db)
    .await?;
    let guards: Vec<Guard> = fetched
        .into_iter()
        .map(|row| Guard {
            id: row.id,
            worker: Some(worker.to_owned()),
            attempts: row.attempts,
            status: Some("Queued"),
        })
        .collect();
    Ok(requeue_all(db, &guards, &Requeue::unstarted()).await?.len())
}

/// Puts back jobs that were fetched and not started. Returns how many; the others belong to somebody else now.
///
/// # Errors
/// See the module; then the jobs are put back when the worker leaves, or rescued.
pub async fn put_back(db: impl PgExecutor<'_>, jobs: &[Job]) -> Result<usize, sqlx::Error> {
    // A job that was fetched again and started meanwhile stays.
    let guards: Vec<Guard> = jobs.iter().map(|job| Guard::from(job).unstarted()).collect();
    Ok(requeue_all(db, &guards, &Requeue::unstarted()).await?.len())
}

/// Removes an ended worker from the list, unless one of its jobs still runs.
///
/// # Errors
/// See the module; then pruning removes it.
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

/// A worker that sent a heartbeat in the last day.
#[derive(Debug, Clone, Serialize)]
pub struct Worker {
    /// The name, unique per start.
    pub id: String,
    /// The queue that it serves.
    pub queue: String,
    /// The last heartbeat.
    pub last_seen: DateTime<Utc>,
    /// Whether the last heartbeat is younger than [`DEAD_AFTER`].
    pub is_alive: bool,
    /// Version, host and process id.
    pub process: String,
    /// Whether the process takes no jobs, because an operator drains it.
    pub is_draining: bool,
    /// When the worker started.
    pub started_at: Option<DateTime<Utc>>,
    /// The number of jobs that it holds, at most 1,000.
    pub running: i64,
    /// The ids of those jobs.
    pub jobs: Vec<String>,
}

impl Worker {
    /// Whether the worker is alive and its process takes jobs.
    pub fn serves(&self) -> bool {
        self.is_alive && !self.is_draining
    }
}

/// Returns the workers seen in the last day, living ones first; at most 1,000.
///
/// # Errors
/// See the module.
pub async fn workers(db: impl PgExecutor<'_>) -> Result<Vec<Worker>, sqlx::Error> {
    sqlx::query_as!(
        Worker,
        r#"select worker.id, worker.worker_type as queue, least(worker.last_seen, now()) as "last_seen!",
                  worker.last_seen > now() - make_interval(secs => $1) as "is_alive!",
                  worker.layers as process,
                  coalesce((select bool_and(drain_at is not null) from process
                            where name = worker.layers
                              and last_seen_at > now() - make_interval(secs => $1)), false) as "is_draining!",
                  case when is_instant(worker.started_at) then worker.started_at end as started_at,
                  coalesce(array_length(held.jobs, 1), 0)::bigint as "running!",
                  coalesce(held.jobs, '{}') as "jobs!"
           from apalis.workers worker
           left join lateral (select array_agg(id order by id) as jobs from (
               select job.id from apalis.jobs job
               where job.lock_by = worker.id and job.status in ('Queued', 'Running')
               limit 1000) j) held on true
           where worker.last_seen > now() - interval '1 day'
           order by worker.last_seen > now() - make_interval(secs => $1) desc, worker.worker_type,
                    worker.id
           limit 1000"#,
        DEAD_AFTER.as_secs_f64(),
    )
    .fetch_all(db)
    .await
}
