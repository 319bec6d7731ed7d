//! How the end of an attempt is stored and logged.

use std::time::Duration;

use tender_jobs::{
    provision::{
        self, Attempt, Completed, Completion, Failure, Lease, Rules, Verdict, relay::RelayId,
    },
    queue::{Job, Settled},
};

use super::Outcome;
use crate::{
    provision::{Context, batch::BatchError},
    runtime::outcome,
};

/// Settles a success.
pub(super) async fn complete(
    context: &Context,
    job: &Job,
    lease: Lease,
    attempt: Attempt,
) -> Outcome {
    let sent = context.zooid.preview(&lease.relay);
    let completion = Completion { job: job.clone(), lease, attempt, sent };
    let (relay, attempt) = (&completion.lease.relay, &completion.attempt);
    let written = outcome::persist(job, || write_completion(context, &completion)).await;
    let Some((in_step, latency)) = written else { return Outcome::Unsettled };
    tracing::info!(
        relay.id = %relay.id, job.id, job.attempt, generation = relay.generation, in_step,
        method = attempt.method, duration_ms = attempt.duration.as_millis(), "relay synced"
    );
    context.stats.count(|counts| counts.add_synced(latency));
    Outcome::Synced
}

/// Settles a deletion.
pub(super) async fn delete_done(
    context: &Context,
    job: &Job,
    lease: &Lease,
    attempt: &Attempt,
) -> Outcome {
    let write = || async {
        let done = provision::delete_done(&context.db, job, lease, attempt, &context.instances);
        Ok::<_, sqlx::Error>(match done.await? {
            Completed::Written { in_step, .. } => Settled::Written(in_step),
            Completed::Gone => Settled::Written(true),
            Completed::LeaseLost | Completed::Locked => Settled::LeaseLost,
        })
    };
    let Some(is_gone) = outcome::persist(job, write).await else { return Outcome::Unsettled };
    let id = lease.relay.id.as_str();
    tracing::info!(relay.id = id, job.id, job.attempt, is_gone, "relay deleted from zooid");
    Outcome::Synced
}

/// Stores a success. A locked relay row is an error here, so that the write is retried.
async fn write_completion(
    context: &Context,
    completion: &Completion,
) -> Result<Settled<(bool, Duration)>, WriteError> {
    match context.batches.completions.ask(completion.clone()).await? {
        Completed::Written { in_step, latency } => Ok(Settled::Written((in_step, latency))),
        // A relay that is gone needs no more: its job has ended.
        Completed::Gone => Ok(Settled::Written((false, Duration::ZERO))),
        Completed::LeaseLost => Ok(Settled::LeaseLost),
        Completed::Locked => Err(WriteError::Locked),
    }
}

/// A success could not be stored yet.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("a transaction holds the relay's row")]
    Locked,
    #[error(transparent)]
    Batch(#[from] BatchError),
}

/// Settles a failure.
pub(super) async fn fail(
    context: &Context,
    job: &Job,
    relay_id: &RelayId,
    lease: Option<&Lease>,
    attempt: &Attempt,
    failure: &Failure,
) -> Outcome {
    let settings = &context.settings;
    let (backoff, breaker) = (&settings.backoff, &settings.breaker);
    let rules = Rules { backoff, breaker, instances: &context.instances };
    // A deletion has no body.
    let has_body = attempt.method.is_some_and(|method| method != "DELETE");
    let sent = lease.filter(|_| has_body).map(|lease| context.zooid.preview(&lease.relay));
    let attempt = &Attempt { sent, ..attempt.clone() };
    let write = || provision::fail(&context.db, job, relay_id, lease, attempt, failure, rules);
    let Some(verdict) = outcome::persist(job, write).await else { return Outcome::Unsettled };
    context.stats.count(|counts| match verdict {
        Verdict::GaveUp => counts.gave_up += 1,
        _ => counts.failed += 1,
    });
    log_failure(job, relay_id, failure, verdict);
    Outcome::Failed(verdict)
}

fn log_failure(job: &Job, relay_id: &RelayId, failure: &Failure, verdict: Verdict) {
    let (id, error) = (relay_id.as_str(), failure.message.as_str());
    match verdict {
        Verdict::RetryAt(at) => {
            tracing::warn!(
                relay.id = id, job.id, job.attempt, error, retry_at = %at,
                "relay not synced; retry scheduled"
            );
        }
        Verdict::Held(_) => {
            tracing::warn!(
                relay.id = id,
                job.id,
                error,
                "relay not synced; its zooid instance is out, and its jobs are held"
            );
        }
        Verdict::Superseded => {
            tracing::info!(
                relay.id = id,
                job.id,
                job.attempt,
                error,
                "relay not synced; a newer job carries the next change"
            );
        }
        Verdict::GaveUp => {
            tracing::error!(
                relay.id = id,
                job.id,
                job.attempt,
                error,
                "relay not synced; gave up: see `tender relay show`"
            );
        }
    }
}
