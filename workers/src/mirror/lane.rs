//! The frame of every job that holds a lane: the job claims the lane, works under the lease, and
//! settles. The lane and its upstream decide the work, as they are when the job starts.

mod claim;
mod wait;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tender_jobs::{
    mirror::{
        lane::{self, Beat, Ending, LaneKind, Lease},
        upstream::{self, Learned, Upstream, settings::Settings},
    },
    queue::{self, Job, Settled},
};
use uuid::Uuid;

use super::{
    Context, backfill,
    error::{StepError, delay},
    information,
    intake::Intake,
    orchestrate, realtime,
    report::Report,
    uploads,
};
use crate::runtime::{failpoint, outcome};
use claim::Claimed;
pub(super) use wait::NO_ROOM_WAIT;

/// How often the holder sends a heartbeat, and learns whether its work is still wanted.
const BEAT: Duration = Duration::from_secs(10);
/// The longest that a job may take: well below the time after which it counts as lost.
const JOB_WITHIN: Duration = Duration::from_secs(100);
/// A job that has run for this long begins no further step; the lane's next job continues.
const STEP_WITHIN: Duration = Duration::from_secs(20);

/// The lane, its upstream and its lease, as the work of a job sees them.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) upstream: &'a Upstream,
    pub(super) settings: &'a Settings,
    pub(super) lease: &'a Lease,
    /// The facts that were known of the upstream at the claim.
    pub(super) learned: &'a Learned,
    /// Whether the upstream's NIP-11 document was due at the claim; then it was read since.
    pub(super) wants_information: bool,
    begun: Instant,
}

/// How the work of a job ended.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) ending: Ending,
    /// The result of the job, for people.
    pub(super) result: Value,
}

impl Run<'_> {
    /// Whether the next step is left to the next job.
    pub(super) fn is_long(&self) -> bool {
        self.begun.elapsed() > STEP_WITHIN
    }

    /// Returns the database's clock, in Unix seconds, or a little less: as it was at the claim, and what has
    /// passed since the work began.
    pub(super) fn now(&self) -> i64 {
        let passed = i64::try_from(self.begun.elapsed().as_secs()).unwrap_or(i64::MAX);
        self.lease.claimed_at.saturating_add(passed)
    }

    /// Opens an intake that stores and counts under the lease.
    pub(super) fn intake(&self) -> Intake {
        let intake = Intake::new(&self.context.db, self.upstream.id, Some(self.lease))
            .through(self.context.gate_of(self.upstream));
        // Polls are where new events of an upstream without a live subscription come from.
        if self.lease.lane.kind == LaneKind::Realtime { intake } else { intake.of_history() }
    }
}

/// Returns the value of a write under a lease; a lost lease is an error, because the work must
/// stop.
pub(super) fn under_lease<T>(written: Settled<T>) -> Result<T, StepError> {
    match written {
        Settled::Written(value) => Ok(value),
        Settled::LeaseLost => Err(StepError::LeaseLost),
    }
}

/// Runs a lane's job.
pub(super) async fn run(context: &Context, job: &Job, lane: Uuid) {
    if outcome::persist(job, || queue::start(&context.db, job)).await.is_none() {
        return;
    }
    let claimed = outcome::with_retries(job, || claim::claim(context, job, lane)).await;
    match claimed {
        Some(Ok(claimed)) => take_turn(context, job, &claimed).await,
        Some(Err(why)) => claim::skip(context, job, why).await,
        None => {} // logged already; the job will be rescued
    }
}

/// Works, unless the job gives way to those of other upstreams.
async fn take_turn(context: &Context, job: &Job, claimed: &Claimed) {
    if let Some(_share) = context.share(job, claimed.upstream.id).await {
        context.connections.stop_waiting(claimed.lease.lane.id);
        hold(context, job, claimed).await;
        wait::hurry_waiting(context).await; // the connection of this job may give way now
    }
}

/// Does the work under the lease, and settles its outcome.
async fn hold(context: &Context, job: &Job, claimed: &Claimed) {
    let Claimed { lease, upstream, settings, learned, wants_information } = claimed;
    let (wants_information, begun) = (*wants_information, Instant::now());
    let run = Run { context, upstream, settings, lease, learned, wants_information, begun };
    let mut report = Report::default();
    let done = if lease.deaths >= job.allowed_attempts() {
        Err(StepError::Died { deaths: lease.deaths })
    } else {
        let work = Box::pin(guard(&run, step(&run, &mut report)));
        match outcome::catch_panic(work).await {
            Ok(done) => done,
            Err(panic) => Err(StepError::Panicked(panic)),
        }
    };
    failpoint!("mirror-before-settle");
    let done = match done {
        Ok(done) => done,
        Err(StepError::LeaseLost) => return wait::lose(context, job).await,
        Err(StepError::Stopping) => return wait::give_back(context, job).await,
        Err(StepError::NoRoom) => return wait::wait_for_room(context, job, &lease.lane).await,
        Err(error) => after_error(&run, job, &error, &mut report),
    };
    let done = without_loops(&run, job, &mut report, done);
    log(&run, job, &report, &done);
    let settled = outcome::with_retries(job, || {
        let Done { ending, result } = &done;
        lane::settle(&context.db, job, lease, &report.progress, ending, result)
    });
    if settled.await == Some(Settled::LeaseLost) {
        wait::lose(context, job).await;
    }
}

async fn step(run: &Run<'_>, report: &mut Report) -> Result<Done, StepError> {
    if !run.upstream.takes_part_in(run.lease.lane.kind) {
        return Err(StepError::Unwanted);
    }
    if run.wants_information {
        let allow_private = run.context.settings.allow_private;
        information::refresh(&run.context.db, run.upstream, allow_private).await;
    }
    if run.lease.lane.kind == LaneKind::Full && is_shortened(run).await? {
        report.is_ahead = true;
        let ending = Ending::GoesOn(Duration::ZERO);
        return Ok(Done { ending, result: json!({ "shortened": "to a week" }) });
    }
    match run.lease.lane.kind {
        LaneKind::Realtime => realtime::run(run, report).await,
        LaneKind::Backfill | LaneKind::Full => backfill::run(run, report).await,
        LaneKind::Upload => uploads::run(run, report).await,
        LaneKind::Live => Err(StepError::Unwanted), // a process holds this lane, not a job
    }
}

/// Shortens a full run that would poll the whole history. The next job reads the new target.
async fn is_shortened(run: &Run<'_>) -> Result<bool, StepError> {
    let (db, upstream) = (&run.context.db, run.upstream.id);
    if !run.upstream.direction.downloads() || upstream::tries_negentropy(db, upstream).await? {
        return Ok(false);
    }
    Ok(lane::shorten_full(db, run.lease, orchestrate::full_hours(run.settings, false)).await?)
}

/// Runs the work, and ends it early if the lease is lost, the work is not wanted any more, the
/// process stops, or the time limit is reached.
async fn guard<T>(
    run: &Run<'_>,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    tokio::select! {
        done = tokio::time::timeout(JOB_WITHIN, work) => done.unwrap_or(Err(StepError::TimeOver)),
        error = beats(run) => Err(error),
        () = run.context.stopping.cancelled() => Err(StepError::Stopping),
    }
}

/// Sends heartbeats until one of them shows that the work must end.
async fn beats(run: &Run<'_>) -> StepError {
    let mut pace = tokio::time::interval(BEAT);
    pace.tick().await; // the claim was a heartbeat
    loop {
        pace.tick().await;
        match lane::beat(&run.context.db, run.lease).await {
            Ok(Beat::Held) => {}
            Ok(Beat::Lost) => return StepError::LeaseLost,
            Ok(Beat::Unwanted) => return StepError::Unwanted,
            Err(error) => {
                let url = &run.upstream.url;
                tracing::warn!(url, %error, "could not store a lane's heartbeat; trying again in 10 s");
            }
        }
    }
}

/// Makes a failure, which backs off, of a job that would go on without progress.
fn without_loops(run: &Run<'_>, job: &Job, report: &mut Report, done: Done) -> Done {
    if !matches!(done.ending, Ending::GoesOn(_)) || report.shows_progress(&run.lease.lane) {
        return done;
    }
    let error = StepError::NoProgress(done.result.to_string());
    after_error(run, job, &error, report)
}

/// Decides how a job ends after an error: by a retry, a further job, rest, or an error of the lane.
fn after_error(run: &Run<'_>, job: &Job, error: &StepError, report: &mut Report) -> Done {
    let asked = error.retry_after().unwrap_or_default();
    let rest = Duration::from_secs(60 * run.settings.error_retry_after_minutes).max(asked);
    let has_died = run.lease.deaths >= job.allowed_attempts();
    let is_ahead = report.shows_progress(&run.lease.lane);
    if matches!(run.lease.lane.kind, LaneKind::Backfill | LaneKind::Full) {
        backfill::after_error(run, error, &mut report.progress); // no progress: the lane backs off
    }
    let ending = match error {
        StepError::Unwanted => Ending::Rests { is_complete: false },
        StepError::TimeOver => Ending::GoesOn(Duration::ZERO),
        // An attempt that moved the lane on is never the last one.
        error if error.is_transient() && !has_died && (is_ahead || !job.is_last_attempt()) => {
            let attempt = if is_ahead { 1 } else { job.attempt };
            let after = delay(attempt, jitter(&job.id)).max(asked);
            Ending::Again { after, error: error.to_string() }
        }
        error => Ending::Failed { error: error.to_string(), rest },
    };
    let result = json!({ "stopped": error.to_string() });
    Done { ending, result }
}

/// Returns a number from 0 to 1 that spreads the retries of jobs that failed together.
fn jitter(job_id: &str) -> f64 {
    let sum: u32 = job_id.bytes().map(u32::from).sum();
    f64::from(sum % 100) / 100.0
}

/// Logs one line about the job, and adds it to the metrics.
fn log(run: &Run<'_>, job: &Job, report: &Report, done: &Done) {
    let (url, lane) = (&run.upstream.url, run.lease.lane.kind.as_str());
    let duration = run.begun.elapsed();
    metrics::histogram!("tender_mirror_step_seconds", "lane" => lane)
        .record(duration.as_secs_f64());
    match &done.ending {
        Ending::Failed { error, rest } => {
            outcome::count(job, "killed");
            log_failure(run, job, error, rest.as_secs());
        }
        Ending::Again { after, error } => {
            outcome::count(job, "retry");
            log_failure(run, job, error, after.as_secs());
        }
        Ending::GoesOn(_) | Ending::Rests { .. } => {
            outcome::count(job, "done");
            let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
            let Report { events, uploads, .. } = report;
            if run.lease.lane.last_error.is_some() {
                tracing::info!(url, lane, "lane works again");
            }
            tracing::info!(
                job.id, url, lane, duration_ms, received = events.received(),
                stored = events.stored, duplicate = events.duplicate,
                rejected = events.rejected(), uploaded = uploads.accepted,
                result = %done.result, "lane job done"
            );
        }
    }
}

/// Warns when the lane begins to fail; the failures that follow are details until it works again.
fn log_failure(run: &Run<'_>, job: &Job, error: &str, next_secs: u64) {
    let (url, lane) = (&run.upstream.url, run.lease.lane.kind.as_str());
    if run.lease.lane.last_error.is_none() {
        tracing::warn!(job.id, job.attempt, url, lane, error, next_secs, "lane failed; retrying");
    } else {
        tracing::debug!(job.id, job.attempt, url, lane, error, next_secs, "lane failed again");
    }
}
