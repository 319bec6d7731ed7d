//! Putting jobs back. Every way back to the queue is a case of [`Requeue`], and all share one
//! statement.

use std::{collections::HashMap, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgExecutor;

use super::{Job, RESCUED, Settled, one_line};

/// What a requeue does to the count of attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spends {
    Nothing,
    One,
    /// One if the job was started: it may have killed its process.
    OneIfStarted,
    /// The count starts at zero again.
    Reset,
}

/// How a job goes back to the queue.
#[derive(Debug, Clone)]
pub struct Requeue<'a> {
    spends: Spends,
    /// `None`: due when it was due before.
    delay: Option<Duration>,
    jitter: f64,
    spread: Duration,
    max_attempts: i32,
    error: Option<&'a str>,
    held_by: Option<&'a str>,
}

impl<'a> Requeue<'a> {
    fn new(spends: Spends, delay: Option<Duration>) -> Self {
        let (jitter, spread) = (0.0, Duration::ZERO);
        Self { spends, delay, jitter, spread, max_attempts: 0, error: None, held_by: None }
    }

    /// The job was fetched and not started: it goes back as it was.
    pub fn unstarted() -> Self {
        Self::new(Spends::Nothing, None)
    }

    /// The job waits for something other than itself; no attempt is spent.
    pub fn wait(delay: Duration) -> Self {
        Self::new(Spends::Nothing, Some(delay))
    }

    /// The job's subject changed while it ran: it starts over, now, with no attempt spent.
    pub fn start_over() -> Self {
        Self::new(Spends::Reset, Some(Duration::ZERO))
    }

    /// The attempt failed and is spent; the next one comes after `delay`.
    pub fn retry(delay: Duration, error: &'a str) -> Self {
        Self { error: Some(error), ..Self::new(Spends::One, Some(delay)) }
    }

    /// The worker died. If the job was started, this counts as a crash; the error of an earlier attempt
    /// stays.
    pub fn rescued() -> Self {
        let error = Some(RESCUED);
        Self { error, ..Self::new(Spends::OneIfStarted, Some(Duration::ZERO)) }
    }

    /// Also forgets the attempts spent so far.
    #[must_use]
    pub fn reset(mut self) -> Self {
        self.spends = Spends::Reset;
        self
    }

    /// Varies the delay by this fraction (0 … 0.5) in both directions.
    #[must_use]
    pub fn jitter(mut self, fraction: f64) -> Self {
        self.jitter = fraction;
        self
    }

    /// Adds a random time up to `spread` to the delay, so that many jobs do not come due at once.
    #[must_use]
    pub fn spread(mut self, spread: Duration) -> Self {
        self.spread = spread;
        self
    }

    /// Raises the number of attempts that the job may make.
    #[must_use]
    pub fn max_attempts(mut self, max_attempts: i32) -> Self {
        self.max_attempts = max_attempts;
        self
    }

    /// Notes what the job waits for, under `held_by` in its metadata.
    #[must_use]
    pub fn held_by(mut self, name: &'a str) -> Self {
        self.held_by = Some(name);
        self
    }

    /// Stores this error as the last result.
    #[must_use]
    pub fn error(mut self, error: &'a str) -> Self {
        self.error = Some(error);
        self
    }

    fn status(&self) -> &'static str {
        if self.spends == Spends::One { "Failed" } else { "Pending" }
    }

    fn spends(&self) -> &'static str {
        match self.spends {
            Spends::Nothing => "nothing",
            Spends::One => "one",
            Spends::OneIfStarted => "one if started",
            Spends::Reset => "reset",
        }
    }
}

/// What a requeue believes about a job; it changes nothing if the belief is wrong.
#[derive(Debug, Clone)]
pub struct Guard {
    /// The job.
    pub id: String,
    /// The worker that holds it.
    pub worker: Option<String>,
    /// The attempts that it has spent.
    pub attempts: i32,
    /// The row's status; `None` allows a fetched and a started job alike.
    pub status: Option<&'static str>,
}

impl From<&Job> for Guard {
    fn from(job: &Job) -> Self {
        let worker = Some(job.worker.clone());
        Self { id: job.id.clone(), worker, attempts: job.attempt - 1, status: None }
    }
}

impl Guard {
    /// Expects the job not to be started.
    #[must_use]
    pub fn unstarted(mut self) -> Self {
        self.status = Some("Queued");
        self
    }
}

/// Where a requeued job is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeued {
    /// It waits, and is due at this instant.
    Waits(DateTime<Utc>),
    /// It ended, because a newer job has its key.
    Superseded,
}

/// Puts a job back.
///
/// # Errors
/// See the module. A unique violation means that another job took the key at the same time; asking
/// again finds it.
pub async fn requeue(
    db: impl PgExecutor<'_>,
    guard: impl Into<Guard>,
    how: &Requeue<'_>,
) -> Result<Settled<Requeued>, sqlx::Error> {
    let requeued = requeue_all(db, &[guard.into()], how).await?;
    Ok(requeued.into_values().next().map_or(Settled::LeaseLost, Settled::Written))
}

/// Puts jobs back, all in the same way, and returns where each is now, by id. Jobs that are not as
/// their guards say are left out.
///
/// # Errors
/// See the module, and [`requeue`].
pub async fn requeue_all(
    db: impl PgExecutor<'_>,
    guards: &[Guard],
    how: &Requeue<'_>,
) -> Result<HashMap<String, Requeued>, sqlx::Error> {
    let ids: Vec<String> = guards.iter().map(|guard| guard.id.clone()).collect();
    let workers: Vec<Option<String>> = guards.iter().map(|guard| guard.worker.clone()).collect();
    let attempts: Vec<i32> = guards.iter().map(|guard| guard.attempts).collect();
    let statuses: Vec<Option<String>> =
        guards.iter().map(|guard| guard.status.map(str::to_owned)).collect();
    let rows = sqlx::query_file!(
        "src/queue/requeue.sql",
        &ids,
        &workers as &[Option<String>],
        &attempts,
        &statuses as &[Option<String>],
        how.status(),
        how.spends(),
        how.max_attempts,
        how.delay.map(|delay| delay.as_secs_f64()),
        how.jitter,
        how.spread.as_secs_f64(),
        how.error.map(|error| json!({ "Err": one_line(error) })),
        how.held_by,
    )
    .fetch_all(db)
    .await?;
    let place = |is_superseded, run_at| {
        if is_superseded { Requeued::Superseded } else { Requeued::Waits(run_at) }
    };
    Ok(rows.into_iter().map(|row| (row.id, place(row.is_superseded, row.run_at))).collect())
}
