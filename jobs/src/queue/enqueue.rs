//! Adding jobs. Every insertion into the queue's table is one of the two statements here.

use std::{collections::HashSet, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::PgExecutor;
use ulid::Ulid;

/// The attempts of a job that says nothing else.
const MAX_ATTEMPTS: i32 = 3;

/// A job to be added. It has no key, priority 0, three attempts, and is due at once, unless the
/// builder's methods say otherwise.
#[derive(Debug, Clone)]
pub struct NewJob {
    pub(super) queue: &'static str,
    pub(super) payload: Vec<u8>,
    key: Option<String>,
    pub(super) priority: i32,
    attempts: i32,
    pub(super) max_attempts: i32,
    after: Duration,
    spread: Duration,
    not_before: Option<DateTime<Utc>>,
}

impl NewJob {
    /// A job of `queue`. The payload is stored as JSON; it should hold ids and a version, not copies
    /// of rows. A payload that serde cannot represent as JSON is stored as `null`.
    pub fn new(queue: &'static str, payload: &impl Serialize) -> Self {
        Self::stored(queue, serde_json::to_vec(payload).unwrap_or_else(|_| b"null".to_vec()))
    }

    /// A job of `queue` with a payload that was stored before.
    pub(super) fn stored(queue: &'static str, payload: Vec<u8>) -> Self {
        Self {
            queue,
            payload,
            key: None,
            priority: 0,
            attempts: 0,
            max_attempts: MAX_ATTEMPTS,
            after: Duration::ZERO,
            spread: Duration::ZERO,
            not_before: None,
        }
    }

    /// Sets the key: a second job of the queue with this key is not inserted.
    #[must_use]
    pub fn key(mut self, key: impl Into<String>) -> Self {
        self.key = Some(key.into());
        self
    }

    /// Sets the priority, one of [`PRIORITIES`](super::PRIORITIES); higher goes first.
    #[must_use]
    pub fn priority(mut self, priority: i32) -> Self {
        self.priority = priority;
        self
    }

    /// Sets how many attempts the job may make, the first included.
    #[must_use]
    pub fn max_attempts(mut self, max_attempts: i32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Makes the job a retry that has spent `attempts` attempts already.
    #[must_use]
    pub fn attempts(mut self, attempts: i32) -> Self {
        self.attempts = attempts;
        self
    }

    /// Makes the job due after a delay.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.after = delay;
        self
    }

    /// Adds a random time up to `spread` to the delay, so that many jobs do not come due at once.
    #[must_use]
    pub fn spread(mut self, spread: Duration) -> Self {
        self.spread = spread;
        self
    }

    /// Makes the job due no earlier than this instant.
    #[must_use]
    pub fn not_before(mut self, instant: Option<DateTime<Utc>>) -> Self {
        self.not_before = instant;
        self
    }
}

/// The insertion. `$head` stands before it, `$conflict` says what happens to a job whose key is taken, and what is
/// returned.
macro_rules! insert {
    ($jobs:expr, $head:literal, $conflict:literal $(, $argument:expr)*) => {{
        let jobs: &[NewJob] = $jobs;
        let ids: Vec<String> = jobs.iter().map(|_| Ulid::generate().to_string()).collect();
        let queues: Vec<String> = jobs.iter().map(|job| job.queue.to_owned()).collect();
        let payloads: Vec<Vec<u8>> = jobs.iter().map(|job| job.payload.clone()).collect();
        let keys: Vec<Option<String>> = jobs.iter().map(|job| job.key.clone()).collect();
        let delays: Vec<f64> = jobs.iter().map(|job| job.after.as_secs_f64()).collect();
        let spreads: Vec<f64> = jobs.iter().map(|job| job.spread.as_secs_f64()).collect();
        let instants: Vec<Option<DateTime<Utc>>> = jobs.iter().map(|job| job.not_before).collect();
        let numbers = |number: fn(&NewJob) -> i32| jobs.iter().map(number).collect::<Vec<i32>>();
        sqlx::query!(
            $head
                + "insert into apalis.jobs as job
                       (id, job_type, job, status, attempts, max_attempts, run_at, priority, idempotency_key)
                   select id, queue, payload, case when attempts > 0 then 'Failed' else 'Pending' end,
                          attempts, greatest(max_attempts, attempts + 1),
                          greatest(not_before, now() + make_interval(secs => delay + random() * spread)),
                          priority, key
                   from unnest($1::text[], $2::text[], $3::bytea[], $4::text[], $5::int[], $6::int[],
                               $7::int[], $8::float8[], $9::float8[], $10::timestamptz[])
                       as asked (id, queue, payload, key, priority, attempts, max_attempts, delay, spread,
                                 not_before)
                   order by key
                   on conflict (job_type, idempotency_key) do "
                + $conflict,
            &ids,
            &queues,
            &payloads,
            &keys as &[Option<String>],
            &numbers(|job| job.priority),
            &numbers(|job| job.attempts),
            &numbers(|job| job.max_attempts),
            &delays,
            &spreads,
            &instants as &[Option<DateTime<Utc>>],
            $($argument),*
        )
    }};
}

/// Adds jobs and returns the ids of those that were inserted. A job whose key is taken is left out:
/// its queue has a job for the same thing already.
///
/// # Errors
/// See the module; then none was added.
pub async fn enqueue(db: impl PgExecutor<'_>, jobs: &[NewJob]) -> Result<Vec<String>, sqlx::Error> {
    let inserted = insert!(jobs, "", "nothing returning id").fetch_all(db).await?;
    Ok(inserted.into_iter().map(|row| row.id).collect())
}

/// Adds jobs with keys like [`enqueue`], and returns the keys of those that were inserted.
///
/// # Errors
/// See the module; then none was added.
pub async fn enqueue_keyed(
    db: impl PgExecutor<'_>,
    jobs: &[NewJob],
) -> Result<HashSet<String>, sqlx::Error> {
    let inserted =
        insert!(jobs, "", "nothing returning idempotency_key as key").fetch_all(db).await?;
    Ok(inserted.into_iter().filter_map(|row| row.key).collect())
}

/// A recurring job, as a tick of the schedule stores it.
#[derive(Debug, Clone)]
pub struct Tick<'a> {
    /// The name, unique over all wings.
    pub name: &'a str,
    /// The wing that the job belongs to.
    pub wing: &'a str,
    /// When it runs: a cron expression of six fields, in UTC.
    pub expression: String,
    /// The next run; `None` while none is planned.
    pub next_at: Option<DateTime<Utc>>,
    /// The run that is due, with its key.
    pub run: Option<NewJob>,
}

/// Enqueues the runs of recurring jobs that are due, and stores when each runs next, in one statement. Returns the
/// database's clock and the keys of the runs that were enqueued: a run that another process has enqueued is left out.
///
/// # Errors
/// See the module; then nothing was stored.
pub async fn tick(
    db: impl PgExecutor<'_>,
    ticks: &[Tick<'_>],
) -> Result<(DateTime<Utc>, Vec<String>), sqlx::Error> {
    let runs: Vec<NewJob> = ticks.iter().filter_map(|tick| tick.run.clone()).collect();
    let names: Vec<String> = ticks.iter().map(|tick| tick.name.to_owned()).collect();
    let wings: Vec<String> = ticks.iter().map(|tick| tick.wing.to_owned()).collect();
    let expressions: Vec<String> = ticks.iter().map(|tick| tick.expression.clone()).collect();
    let next: Vec<Option<DateTime<Utc>>> = ticks.iter().map(|tick| tick.next_at).collect();
    let row = insert!(
        &runs,
        "with planned as (
             insert into recurring_job as r (name, wing, expression, next_at)
             select name, wing, expression, next_at
             from unnest($11::text[], $12::text[], $13::text[], $14::timestamptz[])
                 as asked (name, wing, expression, next_at)
             order by name
             on conflict (name) do update
             set wing = excluded.wing, expression = excluded.expression, next_at = excluded.next_at
             where (r.wing, r.expression, r.next_at)
                   is distinct from (excluded.wing, excluded.expression, excluded.next_at)
         ), added as (",
        "nothing returning idempotency_key)
         select now() as \"now!\", array(select idempotency_key from added) as \"keys!\"",
        &names,
        &wings,
        &expressions,
        &next as &[Option<DateTime<Utc>>]
    );
    let row = row.fetch_one(db).await?;
    Ok((row.now, row.keys))
}

/// Adds jobs. A job with the same key that waits, for its turn or for a retry, is given the new
/// payload and starts over: due as asked, with no attempt spent. One that a worker has fetched is left
/// alone, because its handler has not read its subject yet.
///
/// # Errors
/// See the module; then none was added.
pub async fn enqueue_or_restart(
    db: impl PgExecutor<'_>,
    jobs: &[NewJob],
) -> Result<(), sqlx::Error> {
    let restarted = insert!(
        jobs,
        "",
        "update set job = excluded.job, status = 'Pending', attempts = 0, run_at = excluded.run_at,
                    priority = greatest(job.priority, excluded.priority), done_at = null
         where job.status in ('Pending', 'Failed')
         returning id"
    );
    restarted.fetch_all(db).await?;
    Ok(())
}

/// Makes a waiting job due now. Returns false when no job of `queue` with this key
/// waits.
///
/// # Errors
/// See the module.
pub async fn hurry(db: impl PgExecutor<'_>, queue: &str, key: &str) -> Result<bool, sqlx::Error> {
    let hurried = sqlx::query!(
        "update apalis.jobs set run_at = now()
         where job_type = $1 and idempotency_key = $2 and status in ('Pending', 'Failed')",
        queue,
        key,
    )
    .execute(db)
    .await?;
    Ok(hurried.rows_affected() > 0)
}

/// Whether one of the queues has a job with this key, waiting or running.
///
/// # Errors
/// See the module.
pub async fn has_job(
    db: impl PgExecutor<'_>,
    queues: &[&str],
    key: &str,
) -> Result<bool, sqlx::Error> {
    let queues: Vec<String> = queues.iter().map(|queue| (*queue).to_owned()).collect();
    sqlx::query_scalar!(
        r#"select exists (select from apalis.jobs
                          where job_type = any($1) and idempotency_key = $2) as "has!""#,
        &queues,
        key,
    )
    .fetch_one(db)
    .await
}

/// Whether a job of the queue is due and waits for a worker.
///
/// # Errors
/// See the module.
pub async fn has_due(db: impl PgExecutor<'_>, queue: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from apalis.jobs
                          where job_type = $1 and run_at <= now()
                            and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts)))
                  as "has!""#,
        queue,
    )
    .fetch_one(db)
    .await
}
