//! Settling: an attempt's outcome, or its panic, to the ledger. What apalis would make of a result
//! is not used: handlers return nothing, and rows are ours to write.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use serde_json::Value;
use sqlx::PgPool;
use tender_jobs::{
    queue::{self, Job, Settled},
    recurring,
};

/// Times that a write is tried; with the pauses between them 3 s and more.
const TRIES: u32 = 5;

/// Runs `work`; a panic becomes its message.
pub(crate) async fn catch_panic<T>(work: impl Future<Output = T>) -> Result<T, String> {
    AssertUnwindSafe(work)
        .catch_unwind()
        .await
        .map_err(|panic| format!("panic: {}", words(&*panic)))
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("without words")
}

/// Writes about a job, again when the database does not answer; the guards make a repeat harmless.
/// `None` when it could not be written: the lease runs out and the job is rescued.
pub(crate) async fn persist<T, E, F>(job: &Job, write: impl Fn() -> F) -> Option<T>
where
    E: std::fmt::Display,
    F: Future<Output = Result<T, E>>,
{
    let mut pause = Duration::from_millis(200);
    for _ in 1..TRIES {
        match write().await {
            Ok(written) => return Some(written),
            Err(error) => {
                tracing::warn!(job.id, %error, "could not write about a job; trying again");
            }
        }
        let _time = tokio::time::timeout(pause, std::future::pending::<()>()).await;
        pause *= 2;
    }
    match write().await {
        Ok(written) => Some(written),
        Err(error) => {
            tracing::error!(job.id, %error, "could not write about a job; it is rescued and runs again");
            None
        }
    }
}

/// Runs a recurring job, named like its queue.
pub(crate) async fn recurring(
    db: &PgPool,
    job: &Job,
    work: impl Future<Output = Result<Value, sqlx::Error>>,
) {
    recurring_as(db, job, &job.queue, work).await;
}

/// Runs a recurring job and ends its row. A failed run is not retried: the next tick does it all.
pub(crate) async fn recurring_as(
    db: &PgPool,
    job: &Job,
    name: &str,
    work: impl Future<Output = Result<Value, sqlx::Error>>,
) {
    match persist(job, || queue::start(db, job)).await {
        Some(true) => {}
        Some(false) => return lease_lost(job),
        None => return,
    }
    note(recurring::started(db, name).await);
    let outcome = match catch_panic(work).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(error)) => Err(error.to_string()),
        Err(panic) => Err(panic),
    };
    if let Err(error) = &outcome {
        tracing::error!(job.id, job.queue, %error, "a recurring job failed; its next run is on schedule");
    }
    note(recurring::ended(db, name, outcome.as_ref().err().map(String::as_str)).await);
    count(job, if outcome.is_ok() { "done" } else { "killed" });
    let settled = persist(job, || async {
        match &outcome {
            Ok(result) => queue::finish(db, job, result).await,
            Err(error) => queue::kill(db, job, error).await,
        }
    });
    if let Some(Settled::LeaseLost) = settled.await {
        lease_lost(job);
    }
}

/// The schedule's row is for people; a run does not depend on it.
fn note(written: Result<(), sqlx::Error>) {
    if let Err(error) = written {
        tracing::debug!(%error, "could not note a run of a recurring job");
    }
}

/// Counts an ended attempt.
pub(crate) fn count(job: &Job, outcome: &'static str) {
    let queue = job.queue.clone(); // one of a fixed list
    metrics::counter!("tender_job_attempts_total", "queue" => queue, "outcome" => outcome)
        .increment(1);
}

/// The job was taken over; nothing was written.
pub(crate) fn lease_lost(job: &Job) {
    metrics::counter!("tender_leases_lost_total").increment(1);
    tracing::warn!(
        job.id,
        job.attempt,
        "lease lost: another worker has this job; nothing was written"
    );
}
