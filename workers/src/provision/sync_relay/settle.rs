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
    let duration_ms = u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        generation = relay.generation,
        in_step,
        method = attempt.method,
        duration_ms,
        "relay synced"
    );
    let instance = context.instances.of(&relay.zooid_domain);
    if context.outages.end(instance) {
        tracing::info!(instance, "zooid answers again");
    }
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
    tracing::info!(is_gone, "relay deleted from zooid");
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
    log_failure(context, job, lease, failure, verdict);
    Outcome::Failed(verdict)
}

/// Warns when a relay begins to fail, and when its instance goes out; the attempts in between are details.
fn log_failure(
    context: &Context,
    job: &Job,
    lease: Option<&Lease>,
    failure: &Failure,
    verdict: Verdict,
) {
    let error = failure.message.as_str();
    let instance = lease.map(|lease| context.instances.of(&lease.relay.zooid_domain));
    match verdict {
        Verdict::RetryAt(at) if job.attempt <= 1 => {
            tracing::warn!(error, retry_at = %at, "relay not synced; retry scheduled");
        }
        Verdict::RetryAt(at) => tracing::debug!(error, retry_at = %at, "relay not synced again"),
        Verdict::Held(_) if instance.is_some_and(|name| context.outages.begin(name)) => {
            tracing::warn!(error, instance, "zooid is out; the jobs of its relays are held");
        }
        Verdict::Held(_) => tracing::debug!(error, instance, "relay not synced; zooid is out"),
        Verdict::Superseded => {
            tracing::info!(error, "relay not synced; a newer job carries the next change");
        }
        Verdict::GaveUp => {
            tracing::error!(error, "relay not synced; gave up: see `tender relay show`");
        }
    }
}
