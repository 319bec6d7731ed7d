//! The frame of every job that holds a lane: claim, work under the lease, settle. What it is to do is
//! decided by the lane and its upstream as they are when it starts.

use std::{
    future::Future,
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tender_jobs::{
    lane::{self, Beat, Claim, Ending, LaneKind, Lease, Progress},
    queue::{self, Job, Settled, Work},
    upstream::{self, Upstream, settings::Settings},
};
use uuid::Uuid;

use super::{
    backfill,
    error::{StepError, delay},
    information, realtime, uploads,
};
use crate::{Context, failpoint::failpoint, settle};

/// How often the holder says that it lives, and hears whether it is wanted.
const BEAT: Duration = Duration::from_secs(10);
/// Longest that a job may take: well below the time after which it counts as lost.
const JOB_WITHIN: Duration = Duration::from_secs(100);
/// After this a job begins no further step; the next one goes on.
const STEP_WITHIN: Duration = Duration::from_secs(20);

/// What a lane's work can reach.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) upstream: &'a Upstream,
    pub(super) settings: &'a Settings,
    pub(super) lease: &'a Lease,
    begun: Instant,
}

/// What a lane's work came to.
#[derive(Debug)]
pub(super) struct Done {
    pub(super) ending: Ending,
    /// Jobs besides the next one.
    pub(super) more: Vec<Work>,
    /// What was done, for people.
    pub(super) result: Value,
}

impl Run<'_> {
    /// Whether the next step is another job's.
    pub(super) fn is_long(&self) -> bool {
        self.begun.elapsed() > STEP_WITHIN
    }

    /// The database's clock, in Unix seconds.
    pub(super) async fn now(&self) -> Result<i64, StepError> {
        Ok(queue::now(&self.context.db).await?.timestamp())
    }
}

/// Runs a lane's job.
pub(super) async fn run(context: &Context, job: &Job, lane: Uuid) {
    match settle::persist(job, || queue::start(&context.db, job)).await {
        Some(true) => {}
        Some(false) => return settle::lease_lost(job),
        None => return,
    }
    let claimed = settle::persist(job, || claim(context, job, lane)).await;
    match claimed {
        Some(Ok((lease, upstream))) => hold(context, job, &lease, &upstream).await,
        Some(Err(why)) => skip(context, job, why).await,
        None => {} // said; it is rescued
    }
}

/// The lease and the upstream, or why there is nothing to do.
async fn claim(
    context: &Context,
    job: &Job,
    lane: Uuid,
) -> Result<Result<(Box<Lease>, Upstream), &'static str>, sqlx::Error> {
    let stale = 60 * context.settings.sync.settings.stale_threshold_minutes;
    let lease = match lane::claim(&context.db, lane, job, Duration::from_secs(stale)).await? {
        Claim::Held(lease) => lease,
        Claim::Busy => return Ok(Err("already syncing")),
        Claim::Gone => return Ok(Err("the lane is gone")),
    };
    let upstream = upstream::find(&context.db, lease.lane.upstream_id).await?;
    Ok(upstream.map(|upstream| (lease, upstream)).ok_or("the relay is gone"))
}

/// A job that finds nothing to do has done well.
async fn skip(context: &Context, job: &Job, why: &'static str) {
    tracing::info!(job.id, why, "a sync was skipped");
    settle::count(job, "done");
    let result = json!({ "skipped": why });
    let ended = settle::persist(job, || queue::finish(&context.db, job, &result)).await;
    if let Some(Settled::LeaseLost) = ended {
        settle::lease_lost(job);
    }
}

/// Works under the lease, and settles what came of it.
async fn hold(context: &Context, job: &Job, lease: &Lease, upstream: &Upstream) {
    let settings = upstream.settings(&context.settings.sync.settings);
    let run = Run { context, upstream, settings: &settings, lease, begun: Instant::now() };
    let mut progress = Progress::default();
    let done = if job.attempt > most_attempts(lease.lane.kind) {
        Err(StepError::Refused("its job died again and again".to_owned()))
    } else {
        let work = Box::pin(guard(&run, step(&run, &mut progress)));
        match settle::catch_panic(work).await {
            Ok(done) => done,
            Err(panic) => Err(StepError::Refused(panic)),
        }
    };
    failpoint!("sync-before-settle");
    let done = match done {
        Ok(done) => done,
        Err(StepError::LeaseLost) => return settle::lease_lost(job),
        Err(StepError::Stopping) => return give_back(context, job).await,
        Err(error) => after_error(&run, job, &error),
    };
    say(&run, job, &progress, &done);
    let settled = settle::persist(job, || {
        let Done { ending, more, result } = &done;
        lane::settle(&context.db, job, lease, &progress, ending, more, result)
    });
    if let Some(Settled::LeaseLost) = settled.await {
        settle::lease_lost(job);
    }
}

fn most_attempts(kind: LaneKind) -> i32 {
    Work::Lane { lane: Uuid::nil(), kind }.max_attempts()
}

async fn step(run: &Run<'_>, progress: &mut Progress) -> Result<Done, StepError> {
    if !run.lease.lane.kind.is_for(run.upstream) {
        return Err(StepError::Unwanted);
    }
    information::refresh(&run.context.db, run.upstream).await;
    match run.lease.lane.kind {
        LaneKind::Realtime => realtime::run(run, progress).await,
        LaneKind::Backfill | LaneKind::Full => backfill::run(run, progress).await,
        LaneKind::Upload => uploads::run(run, progress).await,
        LaneKind::Live => Err(StepError::Unwanted), // held by a process, not by a job
    }
}

/// Ends the work early when the lane is lost or not wanted, the process stops or the time is over.
async fn guard<T>(
    run: &Run<'_>,
    work: impl Future<Output = Result<T, StepError>>,
) -> Result<T, StepError> {
    let beats = async {
        let mut pace = tokio::time::interval(BEAT);
        pace.tick().await; // the claim was a sign of life
        loop {
            pace.tick().await;
            match lane::beat(&run.context.db, run.lease).await {
                Ok(Beat::Held) => {}
                Ok(Beat::Lost) => return StepError::LeaseLost,
                Ok(Beat::Unwanted) => return StepError::Unwanted,
                Err(error) => {
                    tracing::warn!(%error, "a sync could not say that it lives; it tries again");
                }
            }
        }
    };
    tokio::select! {
        done = tokio::time::timeout(JOB_WITHIN, work) => done.unwrap_or(Err(StepError::TimeOver)),
        error = beats => Err(error),
        () = run.context.stopping.cancelled() => Err(StepError::Stopping),
    }
}

/// What follows from an error: another attempt, an error of the lane, or rest.
fn after_error(run: &Run<'_>, job: &Job, error: &StepError) -> Done {
    let attempts_left = job.attempt < most_attempts(run.lease.lane.kind);
    let rest = Duration::from_secs(60 * run.settings.error_retry_after_minutes);
    let ending = match error {
        StepError::Unwanted => Ending::Rests { is_complete: false },
        StepError::TimeOver => Ending::GoesOn(Duration::ZERO),
        error if error.is_transient() && attempts_left => {
            let after = delay(job.attempt, jitter(&job.id));
            Ending::Again { after, error: error.to_string() }
        }
        error => Ending::Failed { error: error.to_string(), rest },
    };
    let result = json!({ "stopped": error.to_string() });
    Done { ending, more: Vec::new(), result }
}

/// 0 to 1, of a job: spreads those that failed together.
fn jitter(job_id: &str) -> f64 {
    let sum: u32 = job_id.bytes().map(u32::from).sum();
    f64::from(sum % 100) / 100.0
}

/// The process stops: the job waits as it was, the lane is its own still, any worker may go on at once.
async fn give_back(context: &Context, job: &Job) {
    let given = settle::persist(job, || queue::give_back(&context.db, job)).await;
    if let Some(Settled::LeaseLost) = given {
        settle::lease_lost(job);
    }
}

/// One line per job, and its metrics.
fn say(run: &Run<'_>, job: &Job, progress: &Progress, done: &Done) {
    let (url, lane) = (&run.upstream.url, run.lease.lane.kind.as_str());
    let duration_ms = u64::try_from(run.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
    let outcome = match &done.ending {
        Ending::GoesOn(_) | Ending::Rests { .. } => "done",
        Ending::Again { .. } => "retried",
        Ending::Failed { .. } => "killed",
    };
    settle::count(job, outcome);
    metrics::histogram!("tender_sync_step_seconds", "lane" => lane)
        .record(run.begun.elapsed().as_secs_f64());
    match &done.ending {
        Ending::Failed { error, rest } => tracing::error!(
            job.id,
            url,
            lane,
            error,
            rest_secs = rest.as_secs(),
            "a sync failed; it rests"
        ),
        Ending::Again { after, error } => tracing::warn!(
            job.id,
            job.attempt,
            url,
            lane,
            error,
            after_secs = after.as_secs(),
            "a sync tries again"
        ),
        Ending::GoesOn(_) | Ending::Rests { .. } => tracing::info!(
            job.id, url, lane, duration_ms, received = progress.received, stored = progress.stored,
            duplicate = progress.duplicate, rejected = progress.rejected,
            uploaded = progress.uploaded, result = %done.result, "a sync step is done"
        ),
    }
}
