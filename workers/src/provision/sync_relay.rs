//! The SyncRelay job. One attempt is claim → call → settle; no transaction is open during the call.
//!
//! - `call`: the requests that an attempt makes. `conflict`: a host that another relay still has.
//!   `repair`: a relay whose file zooid cannot read. `classify`: what a failed request means. `settle`: how
//!   the end is stored. `log`: what is logged of it.

mod call;
mod classify;
mod conflict;
pub(super) mod log;
mod repair;
mod settle;

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use metrics::histogram;
use tender_jobs::{
    provision::{
        self, Attempt, Claim, ClaimRequest, Failure, SyncPayload, Verdict,
        relay::{FailureKind, RelayId, Status},
    },
    queue::{self, Guard, Job, Requeue},
};
use tracing::Instrument;

use super::{Context, batch::BatchError};
use crate::runtime::{Place, failpoint, manners, outcome, pause, trace};
use call::Call;
use settle::{complete, delete_done, fail};

/// The first pause after a claim that found no permit. The pauses double and add up to 0.6 s.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
/// The last of these pauses.
const LAST_PAUSE: Duration = Duration::from_millis(320);
/// The shortest delay of a job that is requeued after these pauses. A random part of up to the same
/// length is added.
const MAKE_WAY: Duration = Duration::from_secs(1);
/// The delay of a job whose relay is busy: the attempt of the relay's other job ends soon.
const BUSY_WAIT: Duration = Duration::from_secs(2);

/// The result of an attempt, for tests and metrics. The ledger holds the details.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// zooid has the state that this attempt carried.
    Synced,
    /// The attempt failed. The verdict names the next step, as the ledger stored it.
    Failed(Verdict),
    /// No call was needed: zooid has the wanted state already, the relay gave up, or it does not exist.
    Nothing,
    /// Requeued without spending an attempt: the relay is busy, or the limit of calls in flight is
    /// reached.
    Snoozed,
    /// Requeued without spending an attempt: the breaker of the zooid instance is open.
    Held,
    /// The payload is unreadable, and the job was killed.
    Unreadable,
    /// Nothing was stored: another worker has the job, or the database could not be written.
    Unsettled,
}

/// Every outcome that is counted.
pub const OUTCOMES: [&str; 9] = [
    "synced",
    "retry",
    "gave_up",
    "superseded",
    "held",
    "nothing",
    "snoozed",
    "unreadable",
    "unsettled",
];

impl Outcome {
    fn label(&self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Failed(Verdict::RetryAt(_)) => "retry",
            Self::Failed(Verdict::GaveUp) => "gave_up",
            Self::Failed(Verdict::Superseded) => "superseded",
            Self::Failed(Verdict::Held(_)) | Self::Held => "held",
            Self::Nothing => "nothing",
            Self::Snoozed => "snoozed",
            Self::Unreadable => "unreadable",
            Self::Unsettled => "unsettled",
        }
    }
}

/// Runs a fetched job and counts its outcome. Errors and panics are settled within the attempt.
pub(crate) async fn run(context: Context, job: Job, place: Place) {
    let outcome = attempt_in(&context, &job, &place).await;
    outcome::count(&job, outcome.label());
}

/// Runs one attempt from the claim to the settle. A panic is settled as a failed attempt.
pub async fn attempt(context: &Context, job: &Job) -> Outcome {
    attempt_in(context, job, &Place::none()).await
}

async fn attempt_in(context: &Context, job: &Job, place: &Place) -> Outcome {
    let payload = match SyncPayload::parse(&job.payload) {
        Ok(payload) => payload,
        Err(error) => {
            let is_killed = outcome::kill_unreadable(&context.db, job, &error.to_string()).await;
            return if is_killed { Outcome::Unreadable } else { Outcome::Unsettled };
        }
    };
    // Every line of the attempt has these fields; the host is known from the claim on.
    let span = tracing::info_span!(
        "sync_relay", relay.id = %payload.relay_id, relay.host = tracing::field::Empty, job.id,
        job.attempt
    );
    trace::follow(&span, payload.trace.as_deref());
    let steps = steps(context, job, &payload, place).instrument(span.clone());
    match outcome::catch_panic(steps).await {
        Ok(outcome) => outcome,
        Err(panic) => after_panic(context, job, &payload.relay_id, &panic).instrument(span).await,
    }
}

/// Claims, calls zooid and settles.
async fn steps(context: &Context, job: &Job, payload: &SyncPayload, place: &Place) -> Outcome {
    let relay_id = &payload.relay_id;
    failpoint!("sync-before-claim");
    let claimed = claim_patiently(context, job, relay_id).await;
    failpoint!("sync-after-claim");
    let Some((claimed_at, claim)) = claimed else { return Outcome::Unsettled };
    let lease = match claim {
        Claim::Ready(lease) => lease,
        Claim::Gone => return end(context, job, "the relay does not exist").await,
        Claim::InStep => return end(context, job, "already in step").await,
        Claim::GaveUp => {
            return end(context, job, "the relay gave up, or its job was cancelled").await;
        }
        Claim::Busy => {
            return put_back(context, job, job.into(), Requeue::wait(BUSY_WAIT)).await;
        }
        Claim::Held => return Outcome::Held,
        Claim::Later => {
            let how = Requeue::wait(MAKE_WAY).spread(MAKE_WAY);
            return put_back(context, job, Guard::from(job).unstarted(), how).await;
        }
        Claim::Lost => {
            outcome::lease_lost(job);
            return Outcome::Unsettled;
        }
    };
    if payload.cause.is_change() {
        manners::somebody_waits();
    }
    tracing::Span::current().record("relay.host", lease.relay.host());
    let attempt = Attempt::default();
    let mut call = Call { context, job, lease: &lease, claimed_at, attempt };
    // A rescue does not look at the number of crashes.
    let most = i32::try_from(context.settings.backoff.max_attempts()).unwrap_or(i32::MAX);
    let result = match job.crashed_too_often(most) {
        Some(why) => Err(Failure::new(FailureKind::Transient, &why)),
        None => call.carry().await,
    };
    let attempt = Attempt { duration: claimed_at.elapsed(), ..call.attempt };
    histogram!("tender_sync_duration_seconds").record(attempt.duration.as_secs_f64());
    failpoint!("sync-before-settle");
    place.leave();
    let outcome = match result {
        Ok(()) if lease.relay.status == Status::Deleting => {
            delete_done(context, job, &lease, &attempt).await
        }
        Ok(()) => complete(context, job, *lease, attempt).await,
        Err(failure) => fail(context, job, relay_id, Some(&lease), &attempt, &failure).await,
    };
    failpoint!("sync-after-settle");
    outcome
}

/// Claims the relay, and repeats the claim if there is no permit for a call or a transaction holds
/// the relay's row: both usually pass within milliseconds.
async fn claim_patiently(
    context: &Context,
    job: &Job,
    relay_id: &RelayId,
) -> Option<(Instant, Claim)> {
    let mut wait = FIRST_PAUSE;
    loop {
        match claim(context, job, relay_id).await {
            Some((_, Claim::Later)) if wait <= LAST_PAUSE => {
                pause(wait).await;
                wait *= 2;
            }
            claim => return claim,
        }
    }
}

/// Claims the relay, and retries the statement if it fails. A claim whose answer was lost may have
/// been granted; its lease is then read back. Also returns an instant before the lease began, so that our deadline is
/// never later than the lease's: that of the statement, and of the first one if any of them may have been granted.
async fn claim(context: &Context, job: &Job, relay_id: &RelayId) -> Option<(Instant, Claim)> {
    let request = ClaimRequest { job: job.clone(), relay_id: relay_id.clone() };
    let (first, is_again) = (Instant::now(), AtomicBool::new(false));
    let claim = || async {
        let asked_at = Instant::now();
        if is_again.swap(true, Ordering::Relaxed)
            && let Some(lease) = provision::lease_of(&context.db, job, relay_id).await?
        {
            return Ok((first, Claim::Ready(Box::new(lease))));
        }
        Ok((asked_at, context.batches.claims.ask(request.clone()).await?))
    };
    outcome::with_retries::<_, BatchError, _>(job, claim).await
}

/// Finishes a job that needs no call.
async fn end(context: &Context, job: &Job, why: &str) -> Outcome {
    let why = serde_json::Value::from(why);
    let ended = outcome::persist(job, || queue::finish(&context.db, job, &why)).await;
    ended.map_or(Outcome::Unsettled, |()| Outcome::Nothing)
}

/// Requeues a job without spending an attempt.
async fn put_back(context: &Context, job: &Job, guard: Guard, how: Requeue<'_>) -> Outcome {
    let requeued = outcome::persist(job, || queue::requeue(&context.db, guard.clone(), &how)).await;
    requeued.map_or(Outcome::Unsettled, |_| Outcome::Snoozed)
}

/// Settles a panic as a failed attempt. Reads the lease back, because the panic may have come
/// before or after the claim.
async fn after_panic(context: &Context, job: &Job, relay_id: &RelayId, panic: &str) -> Outcome {
    tracing::error!(%panic, "an attempt panicked");
    let read = || provision::lease_of(&context.db, job, relay_id);
    let Some(lease) = outcome::with_retries(job, read).await else { return Outcome::Unsettled };
    let failure = Failure::new(FailureKind::Transient, panic);
    fail(context, job, relay_id, lease.as_ref(), &Attempt::default(), &failure).await
}
