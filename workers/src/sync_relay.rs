//! `sync-relay`: one attempt is claim → call → settle. No transaction is open during the call.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use metrics::histogram;
use reqwest::StatusCode;
use tender_jobs::{
    queue::{
        self, Attempt, Claim, ClaimRequest, Completed, Completion, Failure, Job, Lease, Reached,
        Rules, Settled, SyncPayload, Verdict,
    },
    relay::{FailureKind, RelayId},
};
use tracing::Instrument;

use crate::{
    Context,
    batch::BatchError,
    failpoint::failpoint,
    settle, trace,
    zooid::{REQUEST_TIMEOUT, ZooidError},
};

/// How long a claim holds its relay. An attempt makes at most three requests of 5 s.
pub const LEASE: Duration = Duration::from_secs(30);
/// No request starts so late that it could end after the lease.
const LATEST_REQUEST: Duration =
    LEASE.saturating_sub(REQUEST_TIMEOUT).saturating_sub(Duration::from_secs(5));
/// Pauses between claims that found no permit: 5 ms, doubling; 0.6 s in all.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LAST_PAUSE: Duration = Duration::from_millis(320);
/// After those the job makes way for others: for a second or two.
const PUT_BACK_SECS: f64 = 1.0;
/// When a relay is busy, its other job's attempt is over soon.
const BUSY_SNOOZE: Duration = Duration::from_secs(2);

/// What an attempt came to; for tests and metrics, the ledger has the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// zooid has what this attempt carried.
    Synced,
    /// It failed; the ledger says what comes next.
    Failed(Verdict),
    /// There was nothing to do: in step, or no such relay.
    Nothing,
    /// Put back without spending an attempt: the relay is busy, or too many calls are in flight.
    Snoozed,
    /// Put back without spending an attempt: zooid is out.
    Held,
    /// The payload cannot be read; killed.
    Unreadable,
    /// Somebody else took over, or the database did not take our word; nothing was written.
    Unsettled,
}

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

/// Runs a fetched job; never fails and never panics, whatever happens inside.
pub(crate) async fn run(context: Context, job: Job) {
    let outcome = attempt(&context, &job).await;
    settle::count(&job, outcome.label());
}

/// One attempt, whole. A panic anywhere is settled as a failed attempt.
pub async fn attempt(context: &Context, job: &Job) -> Outcome {
    let payload = match SyncPayload::parse(&job.payload) {
        Ok(payload) => payload,
        Err(error) => return unreadable(context, job, &error.to_string()).await,
    };
    let span = tracing::info_span!("sync_relay", relay.id = %payload.relay_id, job.id, job.attempt);
    trace::follow(&span, payload.trace.as_deref());
    let steps = steps(context, job, &payload.relay_id).instrument(span);
    match settle::catch_panic(steps).await {
        Ok(outcome) => outcome,
        Err(panic) => {
            tracing::error!(job.id, job.attempt, %panic, "an attempt panicked");
            after_panic(context, job, &payload.relay_id, &panic).await
        }
    }
}

/// The three steps.
async fn steps(context: &Context, job: &Job, relay_id: &RelayId) -> Outcome {
    failpoint!("sync-before-claim");
    let (claimed_at, claim) = claim_patiently(context, job, relay_id).await;
    failpoint!("sync-after-claim");
    let lease = match claim {
        Some(Claim::Ready(lease)) => lease,
        Some(Claim::Gone) => return end(context, job, "there is no such relay").await,
        Some(Claim::InStep) => return end(context, job, "already in step").await,
        Some(Claim::Busy) => return snooze(context, job, relay_id).await,
        Some(Claim::Held) => return Outcome::Held,
        Some(Claim::Later) => return put_back(context, job).await,
        Some(Claim::Lost) => return lost(job),
        None => return Outcome::Unsettled,
    };
    let attempt = Attempt::default();
    let mut call = Call { context, job, lease: &lease, claimed_at, attempt };
    let result = if is_past_cap(context, job) {
        Err(Failure::new(FailureKind::Transient, &format!("crashed {} times", job.attempt - 1)))
    } else {
        call.carry().await
    };
    let attempt = Attempt { duration: claimed_at.elapsed(), ..call.attempt };
    histogram!("tender_sync_duration_seconds").record(attempt.duration.as_secs_f64());
    failpoint!("sync-before-settle");
    let outcome = match result {
        Ok(()) => complete(context, job, *lease, attempt).await,
        Err(failure) => fail(context, job, relay_id, Some(&lease), &attempt, &failure).await,
    };
    failpoint!("sync-after-settle");
    outcome
}

/// Claims, a few times over when there is no permit for a call or somebody has locked the relay's
/// row: both pass within milliseconds, as a rule. With the time before the claim that succeeded, so
/// that the lease ends no sooner than it says.
async fn claim_patiently(
    context: &Context,
    job: &Job,
    relay_id: &RelayId,
) -> (Instant, Option<Claim>) {
    let mut pause = FIRST_PAUSE;
    loop {
        let asked_at = Instant::now();
        match claim(context, job, relay_id).await {
            Some(Claim::Later) if pause <= LAST_PAUSE => {
                let _time = tokio::time::timeout(pause, std::future::pending::<()>()).await;
                pause *= 2;
            }
            claim => return (asked_at, claim),
        }
    }
}

/// Claims, again when the database does not answer. A claim whose answer was lost may have been
/// made: then the lease is ours already.
async fn claim(context: &Context, job: &Job, relay_id: &RelayId) -> Option<Claim> {
    let request = ClaimRequest { job: job.clone(), relay_id: relay_id.clone() };
    let is_again = AtomicBool::new(false);
    let claim = || async {
        if is_again.swap(true, Ordering::Relaxed)
            && let Some(lease) = queue::lease_of(&context.db, job, relay_id).await?
        {
            return Ok(Claim::Ready(Box::new(lease)));
        }
        context.batches.claims.ask(request.clone()).await
    };
    settle::persist::<_, BatchError, _>(job, claim).await
}

/// A rescue does not look at the cap: a job that kills its process would come back for ever.
fn is_past_cap(context: &Context, job: &Job) -> bool {
    u32::try_from(job.attempt)
        .is_ok_and(|attempt| attempt > context.settings.backoff.max_attempts())
}

/// The call: which requests an attempt makes, and what it may still make before its lease ends.
struct Call<'a> {
    context: &'a Context,
    job: &'a Job,
    lease: &'a Lease,
    claimed_at: Instant,
    attempt: Attempt,
}

impl Call<'_> {
    /// Makes zooid's relay what is wanted.
    async fn carry(&mut self) -> Result<(), Failure> {
        if self.lease.relay.provisioned_at.is_none() {
            return self.create_or_adopt().await;
        }
        match self.patch().await? {
            Err(error) if is(&error, StatusCode::NOT_FOUND) => self.recreate(&error).await,
            result => result.map_err(|error| classify(&error)),
        }
    }

    /// The id may exist already, from an attempt whose answer was lost: then it is ours to patch.
    async fn create_or_adopt(&mut self) -> Result<(), Failure> {
        let refused = match self.create().await? {
            Err(error) if is(&error, StatusCode::CONFLICT) => error,
            result => return result.map_err(|error| classify(&error)),
        };
        self.check_lease().await?;
        match self.patch().await? {
            // No such relay: the conflict was about the schema or the host of another.
            Err(error) if is(&error, StatusCode::NOT_FOUND) => Err(classify(&refused)),
            Err(error) => Err(classify(&error)),
            Ok(()) => {
                self.attempt.note = Some("existed already: an earlier answer was lost".to_owned());
                Ok(())
            }
        }
    }

    /// zooid lost a relay that it had: it is made anew, under a new identity.
    async fn recreate(&mut self, lost: &ZooidError) -> Result<(), Failure> {
        if !self.context.settings.recreate_missing {
            return Err(classify(lost));
        }
        self.check_lease().await?;
        tracing::warn!(relay.id = %self.lease.relay.id, "zooid has lost a relay; creating it anew");
        self.attempt.note = Some("zooid had lost the relay; created anew".to_owned());
        self.create().await?.map_err(|error| classify(&error))
    }

    async fn create(&mut self) -> Result<Result<(), ZooidError>, Failure> {
        self.about_to("POST")?;
        failpoint!("sync-before-post");
        let result = self.context.zooid.create(&self.lease.relay).await;
        failpoint!("sync-after-post");
        Ok(result)
    }

    async fn patch(&mut self) -> Result<Result<(), ZooidError>, Failure> {
        self.about_to("PATCH")?;
        failpoint!("sync-before-patch");
        let result = self.context.zooid.patch(&self.lease.relay).await;
        failpoint!("sync-after-patch");
        Ok(result)
    }

    /// A process that was stopped and goes on must not call beside its successor.
    fn about_to(&mut self, method: &'static str) -> Result<(), Failure> {
        self.attempt.method = Some(method);
        if self.claimed_at.elapsed() > LATEST_REQUEST {
            let words = "the attempt took longer than its lease allows";
            return Err(Failure::new(FailureKind::Transient, words));
        }
        Ok(())
    }

    /// A second request comes after an answer that took its time: the relay may be another's now,
    /// with a newer state that must stay.
    async fn check_lease(&self) -> Result<(), Failure> {
        let words = match queue::is_leased(&self.context.db, self.job, self.lease).await {
            Ok(true) => return Ok(()),
            Ok(false) => "the lease was lost during the attempt".to_owned(),
            Err(error) => format!("could not make sure of the lease: {error}"),
        };
        Err(Failure::new(FailureKind::Transient, &words))
    }
}

fn is(error: &ZooidError, expected: StatusCode) -> bool {
    matches!(error, ZooidError::Refused { status, .. } if *status == expected)
}

/// The one place that decides what may pass by itself. Source: `docs/adr/0004-permanent-failures.md`.
fn classify(error: &ZooidError) -> Failure {
    let failure = |kind| Failure::new(kind, &error.to_string());
    match error {
        ZooidError::Refused { status, retry_after, .. } => {
            let kind = match status.as_u16() {
                400 | 405 | 409 | 413 | 422 => FailureKind::Permanent,
                _ => FailureKind::Transient,
            };
            let asks_to_wait = matches!(status.as_u16(), 429 | 503);
            Failure {
                status: Some(status.as_u16()),
                retry_after: retry_after.filter(|_| asks_to_wait),
                reached: if status.is_server_error() { Reached::Outage } else { Reached::Answered },
                ..failure(kind)
            }
        }
        ZooidError::Unreachable(_) => {
            Failure { reached: Reached::Outage, ..failure(FailureKind::Transient) }
        }
    }
}

async fn complete(context: &Context, job: &Job, lease: Lease, attempt: Attempt) -> Outcome {
    let instance = context.instances.of(&lease.relay.zooid_domain).to_owned();
    let sent = context.zooid.preview(&lease.relay);
    let completion = Completion { job: job.clone(), lease, attempt, instance, sent };
    let (relay, attempt) = (&completion.lease.relay, &completion.attempt);
    match settle::persist(job, || write_completion(context, &completion)).await {
        Some(Completed::Written { in_step, latency }) => {
            tracing::info!(
                relay.id = %relay.id, job.id, job.attempt, generation = relay.generation, in_step,
                method = attempt.method, duration_ms = attempt.duration.as_millis(), "relay synced"
            );
            context.stats.count(|counts| counts.add_synced(latency));
            Outcome::Synced
        }
        Some(Completed::LeaseLost) => lost(job),
        Some(Completed::Locked) | None => Outcome::Unsettled,
    }
}

/// A relay's row that somebody has locked is an error here: the write is tried again.
async fn write_completion(
    context: &Context,
    completion: &Completion,
) -> Result<Completed, WriteError> {
    match context.batches.completions.ask(completion.clone()).await? {
        Completed::Locked => Err(WriteError::Locked),
        completed => Ok(completed),
    }
}

/// Why a success was not written yet.
#[derive(Debug, thiserror::Error)]
enum WriteError {
    #[error("a transaction holds the relay's row")]
    Locked,
    #[error(transparent)]
    Batch(#[from] BatchError),
}

async fn fail(
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
    let write = || queue::fail(&context.db, job, relay_id, lease, attempt, failure, rules);
    match settle::persist(job, write).await {
        Some(Settled::Written(verdict)) => {
            context.stats.count(|counts| match verdict {
                Verdict::GaveUp => counts.gave_up += 1,
                _ => counts.failed += 1,
            });
            log_failure(job, relay_id, failure, verdict);
            Outcome::Failed(verdict)
        }
        Some(Settled::LeaseLost) => lost(job),
        None => Outcome::Unsettled,
    }
}

fn log_failure(job: &Job, relay_id: &RelayId, failure: &Failure, verdict: Verdict) {
    let (id, error) = (relay_id.as_str(), failure.message.as_str());
    match verdict {
        Verdict::RetryAt(at) => {
            tracing::warn!(relay.id = id, job.id, job.attempt, error, retry_at = %at, "relay not synced; it is tried again");
        }
        Verdict::Held(_) => {
            tracing::warn!(
                relay.id = id,
                job.id,
                error,
                "zooid is out: its breaker is open, and jobs wait"
            );
        }
        Verdict::Superseded => {
            tracing::info!(
                relay.id = id,
                job.id,
                job.attempt,
                error,
                "relay not synced; a newer change goes on"
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

fn lost(job: &Job) -> Outcome {
    settle::lease_lost(job);
    Outcome::Unsettled
}

async fn end(context: &Context, job: &Job, why: &str) -> Outcome {
    let why = serde_json::Value::from(why);
    match settle::persist(job, || queue::finish(&context.db, job, &why)).await {
        Some(Settled::Written(())) => Outcome::Nothing,
        Some(Settled::LeaseLost) => lost(job),
        None => Outcome::Unsettled,
    }
}

async fn snooze(context: &Context, job: &Job, relay_id: &RelayId) -> Outcome {
    match settle::persist(job, || queue::snooze(&context.db, job, relay_id, BUSY_SNOOZE)).await {
        Some(Settled::Written(())) => Outcome::Snoozed,
        Some(Settled::LeaseLost) => lost(job),
        None => Outcome::Unsettled,
    }
}

async fn put_back(context: &Context, job: &Job) -> Outcome {
    match settle::persist(job, || queue::put_back(&context.db, job, PUT_BACK_SECS)).await {
        Some(Settled::Written(())) => Outcome::Snoozed,
        Some(Settled::LeaseLost) => lost(job),
        None => Outcome::Unsettled,
    }
}

async fn unreadable(context: &Context, job: &Job, reason: &str) -> Outcome {
    tracing::error!(job.id, reason, "killed a job that nobody can do");
    match settle::persist(job, || queue::kill(&context.db, job, reason)).await {
        Some(Settled::Written(())) => Outcome::Unreadable,
        Some(Settled::LeaseLost) => lost(job),
        None => Outcome::Unsettled,
    }
}

/// The lease is read back: the panic may have struck on either side of the claim.
async fn after_panic(context: &Context, job: &Job, relay_id: &RelayId, panic: &str) -> Outcome {
    let lease = settle::persist(job, || queue::lease_of(&context.db, job, relay_id)).await;
    let Some(lease) = lease else { return Outcome::Unsettled };
    let failure = Failure::new(FailureKind::Transient, panic);
    fail(context, job, relay_id, lease.as_ref(), &Attempt::default(), &failure).await
}
