//! Outcomes: what an attempt came to, and how it is written to the ledger. apalis's own results are not
//! used: handlers return nothing, and our statements write the rows
//! (`docs/adr/0001-settle-our-own-rows.md`).

use std::{any::Any, fmt::Display, future::Future, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use serde_json::Value;
use sqlx::PgPool;
use tender_jobs::queue::{self, Job, Requeue, Settled, schedule};

use super::pause;

/// Attempts to store an outcome; with the pauses between them they take at least 3 s.
const TRIES: u32 = 5;
/// The pause after the first of them; it doubles.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// When a job that panicked is retried.
const AFTER_PANIC: Duration = Duration::from_secs(30);

/// What an attempt came to.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The job is done; the value is its result, for people.
    Done(Value),
    /// The job is done, and its payload is of no more use: it is emptied.
    DoneAndEmptied(Value),
    /// The attempt failed and is spent. The job is retried after a delay, or killed if this was its
    /// last attempt.
    Retry {
        /// The delay.
        after: Duration,
        /// Why the attempt failed.
        error: String,
    },
    /// The job can never succeed, for this reason.
    Killed(String),
    /// The job goes back to the queue, due after a delay; no attempt is spent.
    Requeue(Duration),
}

/// Every outcome that is counted for jobs that the runtime settles.
pub const OUTCOMES: [&str; 5] = ["done", "retry", "killed", "requeued", "unreadable"];

impl Outcome {
    fn label(&self) -> &'static str {
        match self {
            Self::Done(_) | Self::DoneAndEmptied(_) => "done",
            Self::Retry { .. } => "retry",
            Self::Killed(_) => "killed",
            Self::Requeue(_) => "requeued",
        }
    }
}

/// Runs one attempt of a job: starts it, runs `work`, and stores the outcome. A panic is a failed
/// attempt. Nothing is written if another worker has the job.
pub async fn attempt(db: &PgPool, job: &Job, work: impl Future<Output = Outcome>) {
    Attempt { db, job, recurring: None }.run(work).await;
}

/// An attempt of a job, which may be a run of a recurring job.
struct Attempt<'a> {
    db: &'a PgPool,
    job: &'a Job,
    recurring: Option<&'a str>,
}

impl Attempt<'_> {
    async fn run(&self, work: impl Future<Output = Outcome>) {
        let job = self.job;
        if persist(job, || self.start()).await.is_none() {
            return;
        }
        let outcome = match job.crashed_too_often(job.allowed_attempts()) {
            Some(reason) => Outcome::Killed(reason),
            None => catch_panic(work)
                .await
                .unwrap_or_else(|error| Outcome::Retry { after: AFTER_PANIC, error }),
        };
        if let Outcome::Retry { error, .. } | Outcome::Killed(error) = &outcome {
            log_failure(job, error, matches!(&outcome, Outcome::Killed(_)));
        }
        count(job, outcome.label());
        persist(job, || self.end(&outcome)).await;
    }

    async fn start(&self) -> Result<Settled<()>, sqlx::Error> {
        if let Some(name) = self.recurring
            && let Some(started) = noted(schedule::start(self.db, self.job, name).await)
        {
            return started;
        }
        queue::start(self.db, self.job).await
    }

    async fn end(&self, outcome: &Outcome) -> Result<Settled<()>, sqlx::Error> {
        let result = match outcome {
            Outcome::Done(result) => Some(Ok(result)),
            Outcome::Killed(error) => Some(Err(error.as_str())),
            _ => None,
        };
        if let Some((name, result)) = self.recurring.zip(result)
            && let Some(ended) = noted(schedule::end(self.db, self.job, name, result).await)
        {
            return ended;
        }
        store(self.db, self.job, outcome).await
    }
}

/// The schedule's row is for people; a run does not depend on it. `None` if the database refused the note: the job is
/// then written without it.
fn noted(written: Result<Settled<()>, sqlx::Error>) -> Option<Result<Settled<()>, sqlx::Error>> {
    if let Err(error @ sqlx::Error::Database(_)) = &written {
        tracing::debug!(%error, "could not note a run of a recurring job");
        return None;
    }
    Some(written)
}

/// Warns when a job begins to fail and when it is killed; its attempts in between are details.
fn log_failure(job: &Job, error: &str, is_killed: bool) {
    if is_killed || job.is_last_attempt() {
        tracing::error!(job.id, job.queue, job.attempt, error, "a job failed and is killed");
    } else if job.attempt <= 1 {
        tracing::warn!(job.id, job.queue, job.attempt, error, "a job failed; it is retried");
    } else {
        tracing::debug!(job.id, job.queue, job.attempt, error, "a job failed again");
    }
}

async fn store(db: &PgPool, job: &Job, outcome: &Outcome) -> Result<Settled<()>, sqlx::Error> {
    let how = match outcome {
        Outcome::Done(result) => return queue::finish(db, job, result).await,
        Outcome::DoneAndEmptied(result) => {
            return queue::finish_and_empty(db, job, result).await;
        }
        Outcome::Killed(error) => return queue::kill(db, job, error).await,
        Outcome::Retry { error, .. } if job.is_last_attempt() => {
            return queue::kill(db, job, error).await;
        }
        Outcome::Retry { after, error } => Requeue::retry(*after, error),
        Outcome::Requeue(after) => Requeue::wait(*after),
    };
    Ok(queue::requeue(db, job, &how).await?.map(|_| ()))
}

/// Runs one run of the recurring job `name`, and notes it on the schedule. A failed run is not retried:
/// the next run does all of its work.
pub async fn recurring(
    db: &PgPool,
    job: &Job,
    name: &str,
    work: impl Future<Output = Result<Value, sqlx::Error>>,
) {
    let run = async {
        match catch_panic(work).await {
            Ok(result) => {
                result.map_or_else(|error| Outcome::Killed(error.to_string()), Outcome::Done)
            }
            Err(panic) => Outcome::Killed(panic),
        }
    };
    Attempt { db, job, recurring: Some(name) }.run(run).await;
}

/// Kills a job whose payload cannot be read. Returns whether that was stored.
pub(crate) async fn kill_unreadable(db: &PgPool, job: &Job, reason: &str) -> bool {
    tracing::error!(job.id, job.queue, reason, "payload unreadable; job killed");
    count(job, "unreadable");
    persist(job, || queue::kill(db, job, reason)).await.is_some()
}

/// Runs `work` and turns a panic into its message.
pub(crate) async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|panic| format!("panic: {}", message(&*panic)))
}

/// Returns the message of a panic.
pub(super) fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}

/// Stores something about a job and returns the value written. `None` if nothing was: another worker has
/// the job, or the database stayed unreachable, and then the job is rescued.
pub(crate) async fn persist<T, E, F>(job: &Job, write: impl Fn() -> F) -> Option<T>
where
    E: Display,
    F: Future<Output = Result<Settled<T>, E>>,
{
    match with_retries(job, write).await? {
        Settled::Written(value) => Some(value),
        Settled::LeaseLost => {
            lease_lost(job);
            None
        }
    }
}

/// Runs a statement about a job, up to five times while it fails; the guards make a repetition harmless.
/// `None` if it did not succeed: then the job is rescued.
pub(crate) async fn with_retries<T, E, F>(job: &Job, write: impl Fn() -> F) -> Option<T>
where
    E: Display,
    F: Future<Output = Result<T, E>>,
{
    let mut wait = FIRST_PAUSE;
    for _ in 1..TRIES {
        match write().await {
            Ok(written) => return Some(written),
            Err(error) => {
                tracing::warn!(job.id, %error, "could not store the job's state; trying again");
            }
        }
        pause(wait).await;
        wait *= 2;
    }
    match write().await {
        Ok(written) => Some(written),
        Err(error) => {
            tracing::error!(job.id, %error, "could not store the job's state; it will be rescued");
            None
        }
    }
}

/// Counts an ended attempt.
pub(crate) fn count(job: &Job, outcome: &'static str) {
    let queue = job.queue.clone(); // one of a fixed list
    metrics::counter!("tender_job_attempts_total", "queue" => queue, "outcome" => outcome)
        .increment(1);
}

/// Reports that another worker has the job.
pub(crate) fn lease_lost(job: &Job) {
    metrics::counter!("tender_leases_lost_total").increment(1);
    tracing::warn!(
        job.id,
        job.attempt,
        "lease lost: another worker has this job; nothing was written"
    );
}
