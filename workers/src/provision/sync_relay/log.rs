//! What the log says of the end of attempts. An outage is one error when it begins and one line when it ends; the
//! relays that it concerns are details.

use tender_jobs::{
    provision::{Failure, Verdict},
    queue::Job,
};

use crate::runtime::Troubles;

/// The instances that fail, as far as this process knows.
#[derive(Debug, Default)]
pub(in crate::provision) struct Outages {
    /// Instances with a failure and no answer since.
    failing: Troubles,
    /// Instances whose breaker is open, or through which a relay gave up.
    out: Troubles,
}

/// Logs a failed attempt. The first failure of a relay is a warning, but failures of one instance are one warning until
/// it answers.
pub(super) fn failed(
    outages: &Outages,
    job: &Job,
    instance: Option<&str>,
    failure: &Failure,
    verdict: Verdict,
) {
    let error = failure.message.as_str();
    if let Some(instance) = instance {
        if failure.reached.is_outage() {
            return in_outage(outages, instance, error, verdict);
        }
        if failure.was_answered() {
            answered(outages, instance, None);
        }
    }
    match verdict {
        Verdict::RetryAt(at) if job.attempt <= 1 => {
            tracing::warn!(error, retry_at = %at, "relay not synced; retry scheduled");
        }
        Verdict::RetryAt(at) => tracing::debug!(error, retry_at = %at, "relay not synced again"),
        Verdict::Held(_) => tracing::debug!(error, instance, "relay not synced; zooid is out"),
        Verdict::Superseded => superseded(error),
        Verdict::GaveUp => {
            tracing::error!(error, "relay not synced; gave up: see `tender relay show`");
        }
    }
}

/// Logs a failure that is the instance's, not the relay's.
fn in_outage(outages: &Outages, instance: &str, error: &str, verdict: Verdict) {
    match verdict {
        Verdict::RetryAt(at) if outages.failing.begin(instance) => {
            tracing::warn!(error, instance, retry_at = %at, "relay not synced; retry scheduled");
        }
        Verdict::RetryAt(at) => {
            tracing::debug!(error, instance, retry_at = %at, "relay not synced; zooid fails");
        }
        Verdict::Held(_) if outages.out.begin(instance) => tracing::error!(
            error,
            instance,
            "zooid is out; its relays wait: see `tender instance list`"
        ),
        Verdict::Held(_) => tracing::debug!(error, instance, "relay not synced; zooid is out"),
        Verdict::GaveUp if outages.out.begin(instance) => tracing::error!(
            error,
            instance,
            "zooid is out, and relays give up until it answers: see `tender relay list --sync gave_up`"
        ),
        Verdict::GaveUp => {
            tracing::info!(error, instance, "relay not synced; gave up in an outage");
        }
        Verdict::Superseded => superseded(error),
    }
}

fn superseded(error: &str) {
    tracing::info!(error, "relay not synced; a newer job carries the next change");
}

/// Logs that an instance answers again. `released` counts the relays that waited, if this answer ended the outage.
pub(super) fn answered(outages: &Outages, instance: &str, released: Option<u64>) {
    outages.failing.end(instance);
    let was_out = outages.out.end(instance);
    match released {
        Some(waited) => tracing::info!(instance, waited, "zooid answers again; its relays go on"),
        None if was_out => tracing::info!(instance, "zooid answers again"),
        None => {}
    }
}
