//! How the end of an attempt is stored and logged.

use std::time::Duration;

use tender_jobs::{
    provision::{self, Attempt, Completed, Completion, Failure, Lease, Rules, relay::RelayId},
    queue::{Job, Settled},
};

use super::{Outcome, log};
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
    let Some(Written { in_step, latency, released }) = written else { return Outcome::Unsettled };
    let duration_ms = u64::try_from(attempt.duration.as_millis()).unwrap_or(u64::MAX);
    tracing::info!(
        generation = relay.generation,
        in_step,
        method = attempt.method,
        duration_ms,
        "relay synced"
    );
    let instance = context.instances.of(&relay.zooid_domain);
    log::answered(&context.outages, instance, released);
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
            Completed::Written { in_step, released, .. } => Settled::Written((in_step, released)),
            Completed::Gone => Settled::Written((true, None)),
            Completed::LeaseLost | Completed::Locked => Settled::LeaseLost,
        })
    };
    let Some((is_gone, released)) = outcome::persist(job, write).await else {
        return Outcome::Unsettled;
    };
    tracing::info!(is_gone, "relay deleted from zooid");
    log::answered(&context.outages, context.instances.of(&lease.relay.zooid_domain), released);
    Outcome::Synced
}

/// What a stored success came to.
struct Written {
    in_step: bool,
    latency: Duration,
    released: Option<u64>,
}

/// Stores a success. A locked relay row is an error here, so that the write is retried.
async fn write_completion(
    context: &Context,
    completion: &Completion,
) -> Result<Settled<Written>, WriteError> {
    match context.batches.completions.ask(completion.clone()).await? {
        Completed::Written { in_step, latency, released } => {
            Ok(Settled::Written(Written { in_step, latency, released }))
        }
        // A relay that is gone needs no more: its job has ended.
        Completed::Gone => Ok(Settled::Written(Written {
            in_step: false,
            latency: Duration::ZERO,
            released: None,
        })),
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
        provision::Verdict::GaveUp => counts.gave_up += 1,
        _ => counts.failed += 1,
    });
    let instance = lease.map(|lease| context.instances.of(&lease.relay.zooid_domain));
    log::failed(&context.outages, job, instance, failure, verdict);
    Outcome::Failed(verdict)
}
