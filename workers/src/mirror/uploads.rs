//! Runs of the upload lane: the one uploader of an upstream.

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::{
    mirror::{
        event::{
            EventId,
            outgoing::{self, Begun, Candidates, UploadTally},
        },
        lane::{self, Ending},
        upstream,
    },
    queue::Job,
};
use uuid::Uuid;

use super::{
    Context,
    error::{StepError, delay},
    lane::{Done, NO_ROOM_WAIT, Run, under_lease},
    report::Report,
    upload::{Accepts, State, Stop, Unsent, Uploader},
};
use crate::runtime::{Outcome, outcome};

/// The most events of one run, and the most events behind the lane's position.
const RUN: i64 = 1000;
/// The pause after the connection was lost in a run that stored answers.
const AFTER_LOSS: Duration = Duration::from_secs(5);

/// What a run has reached when it has sent its events.
#[derive(Clone, Copy)]
struct Reach {
    up_to: i64,
    /// Whether there are further events.
    more: bool,
}

/// Does the next run of an upload lane: the events whose retry is due and those that a
/// reconciliation found missing, then those that arrived since the last run, and at last the events
/// with which the connection was lost.
pub(super) async fn run(run: &Run<'_>, report: &mut Report) -> Result<Done, StepError> {
    let db = &run.context.db;
    let accepts = accepts(run).await?;
    let filter = lane::filter_hash(&run.settings.filter);
    let begun = under_lease(outgoing::begin(db, run.lease, &filter).await?)?;
    // After a change of the filter, the lane begins again below its position: that is no loop.
    report.is_ahead |= begun.position < run.lease.lane.upload_position;
    let (unsent, reach) = plan(run, &accepts, begun).await?;
    let (stop, judged) = if unsent.is_empty() {
        (Stop::Done, 0)
    } else {
        send(run, &accepts, unsent, report).await?
    };
    let mut result = result(report.uploads);
    let ending = ending(reach, stop, judged, report)?;
    result["position"] = json!(reach.up_to);
    Ok(Done { ending, result })
}

/// Returns what the upstream takes. It is read again if its NIP-11 document has just been read.
async fn accepts(run: &Run<'_>) -> Result<Accepts, StepError> {
    let own = run.context.settings.key.as_ref().map(|key| key.public_key().to_bytes());
    if !run.wants_information {
        return Ok(Accepts::of(run.upstream, own));
    }
    let upstream = upstream::find(&run.context.db, run.upstream.id).await?;
    Ok(Accepts::of(upstream.as_ref().unwrap_or(run.upstream), own))
}

/// Reads the events of a run.
async fn plan(
    run: &Run<'_>,
    accepts: &Accepts,
    begun: Begun,
) -> Result<(Unsent, Reach), StepError> {
    let waiting = outgoing::waiting(&run.context.db, run.upstream.id, RUN).await?;
    let found = new_events(run, accepts, begun.position).await?;
    let reach = Reach { up_to: found.up_to, more: found.more };
    let size = usize::try_from(run.settings.upload_batch_size).unwrap_or(usize::MAX);
    Ok((Unsent::new(waiting, found, size, begun.sending), reach))
}

/// Finds the events after a position, page by page, until a page has some.
async fn new_events(
    run: &Run<'_>,
    accepts: &Accepts,
    mut after: i64,
) -> Result<Candidates, StepError> {
    let (filter, author) = (&run.settings.filter, accepts.author());
    loop {
        let (db, id) = (&run.context.db, run.upstream.id);
        let found = outgoing::candidates(db, id, filter, author, after, RUN).await?;
        if !found.events.is_empty() || !found.more || run.is_long() {
            return Ok(found);
        }
        after = found.up_to;
    }
}

async fn send(
    run: &Run<'_>,
    accepts: &Accepts,
    unsent: Unsent,
    report: &mut Report,
) -> Result<(Stop, u64), StepError> {
    let connection = run.context.connections.get(run.upstream).await?;
    let pace = run.context.connections.pace(run.upstream.id);
    let mut uploader = Uploader {
        db: &run.context.db,
        lease: run.lease,
        connection: &connection,
        settings: run.settings,
        accepts,
        pace: &pace,
        state: State::default(),
    };
    let stop = uploader.upload(unsent, || run.is_long(), &mut report.uploads).await?;
    Ok((stop, uploader.state.judged))
}

/// Decides how the job ends. An error is no failure of a run in which the upstream took or judged
/// events: the next job continues behind them.
fn ending(reach: Reach, stop: Stop, judged: u64, report: &mut Report) -> Result<Ending, StepError> {
    let rests = Ending::Rests { is_complete: false };
    Ok(match stop {
        Stop::Done => {
            report.progress.upload_position = Some(reach.up_to);
            report.progress.upload_horizon = Some(reach.up_to);
            if reach.more { Ending::GoesOn(Duration::ZERO) } else { rests }
        }
        Stop::Late | Stop::AuthorsOnly => Ending::GoesOn(Duration::ZERO),
        Stop::Refused => rests,
        Stop::Failed(StepError::RateLimited(_)) if report.uploads.accepted > 0 => rests,
        Stop::Failed(StepError::Connection(_)) if judged > 0 => Ending::GoesOn(AFTER_LOSS),
        Stop::Failed(error) => return Err(error),
    })
}

/// Returns the counts of a job, as its result for people.
fn result(sent: UploadTally) -> Value {
    json!({
        "accepted": sent.accepted, "duplicate": sent.duplicate, "rejected": sent.rejected,
        "pending": sent.pending,
    })
}

/// Runs a job of an earlier release, which uploaded a list of events: they wait for the upload lane
/// now.
pub(super) async fn upload_events(context: &Context, job: &Job, upstream: Uuid, ids: &[String]) {
    let work = async {
        let ids: Vec<EventId> = ids.iter().filter_map(|id| EventId::parse(id)).collect();
        let waiting = outgoing::lost(&context.db, upstream, None, &ids).await?;
        Ok(json!({ "waiting": waiting }))
    };
    Box::pin(attempt(context, job, work)).await;
}

/// The longest that a job without a lane may take.
const JOB_WITHIN: Duration = Duration::from_secs(100);

/// Runs a job that holds no lane. Transient errors are retried; others kill the job.
pub(super) async fn attempt(
    context: &Context,
    job: &Job,
    work: impl Future<Output = Result<Value, StepError>>,
) {
    attempt_and(context, job, work, Outcome::Done).await;
}

/// Runs a job like [`attempt`]; `done` is its outcome after a success.
pub(super) async fn attempt_and(
    context: &Context,
    job: &Job,
    work: impl Future<Output = Result<Value, StepError>>,
    done: fn(Value) -> Outcome,
) {
    outcome::attempt(&context.db, job, async {
        let result = tokio::select! {
            ended = tokio::time::timeout(JOB_WITHIN, work) => {
                ended.unwrap_or(Err(StepError::TimeOver))
            }
            () = context.stopping.cancelled() => Err(StepError::Stopping),
        };
        match result {
            Ok(result) => done(result),
            Err(StepError::Stopping) => Outcome::Requeue(Duration::ZERO),
            Err(StepError::NoRoom) => Outcome::Requeue(NO_ROOM_WAIT),
            Err(error) if error.is_transient() => {
                let after = delay(job.attempt, 0.0).max(error.retry_after().unwrap_or_default());
                Outcome::Retry { after, error: error.to_string() }
            }
            Err(error) => Outcome::Killed(error.to_string()),
        }
    })
    .await;
}
