//! Jobs that upload: runs of the upload lane, and lists of events that a reconciliation found.

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::{
    mirror::{
        event::{
            EventId,
            outgoing::{self, UploadTally},
        },
        lane::Ending,
        upstream::{self, Upstream},
    },
    queue::Job,
};
use uuid::Uuid;

use super::{
    Context,
    error::{StepError, delay},
    lane::{Done, NO_ROOM_WAIT, Report, Run},
    upload::Uploader,
};
use crate::runtime::{Outcome, outcome};

/// The most events of one run.
const RUN: i64 = 1000;

/// Does the next run of an upload lane: first the events whose retry is due, then those that
/// arrived since the last run.
pub(super) async fn run(run: &Run<'_>, report: &mut Report) -> Result<Done, StepError> {
    let (db, id) = (&run.context.db, run.upstream.id);
    let mut events = outgoing::pending(db, id, RUN).await?;
    let room = RUN - i64::try_from(events.len()).unwrap_or(RUN);
    let after = run.lease.lane.upload_position;
    let found = outgoing::candidates(db, id, &run.settings.filter, after, room.max(1)).await?;
    events.extend(found.events);
    if !events.is_empty() {
        let connection = run.context.connections.get(run.upstream).await?;
        let mut uploader = Uploader::new(db, id, Some(run.lease), &connection, run.settings);
        uploader.upload(&events, &mut report.uploads).await?;
    }
    // Only now does every event up to this position have a verdict.
    report.progress.upload_position = Some(found.up_to);
    let ending = if found.more {
        Ending::GoesOn(Duration::ZERO)
    } else {
        Ending::Rests { is_complete: false }
    };
    let mut result = result(report.uploads);
    result["sent"] = json!(events.len());
    result["position"] = json!(found.up_to);
    Ok(Done { ending, more: Vec::new(), result })
}

/// Returns the counts of a job, as its result for people.
fn result(sent: UploadTally) -> Value {
    json!({
        "accepted": sent.accepted, "duplicate": sent.duplicate, "rejected": sent.rejected,
    })
}

/// Runs a job that uploads a list of events.
pub(super) async fn upload_events(context: &Context, job: &Job, upstream: Uuid, ids: &[String]) {
    let work = async {
        let Some(upstream) = upstream::find(&context.db, upstream).await? else {
            return Ok(json!({ "skipped": "the upstream was deleted" }));
        };
        if !upstream.enabled || !upstream.direction.uploads() {
            return Ok(json!({ "skipped": "the upstream takes no uploads any more" }));
        }
        let ids: Vec<EventId> = ids.iter().filter_map(|id| EventId::parse(id)).collect();
        upload_wanted(context, &upstream, &ids).await
    };
    Box::pin(attempt(context, job, work)).await;
}

/// Uploads the events that the upstream still lacks and that its filter matches. The job holds no
/// lane, because the upload lane may have a holder at this time.
async fn upload_wanted(
    context: &Context,
    upstream: &Upstream,
    ids: &[EventId],
) -> Result<Value, StepError> {
    let settings = upstream.settings(&context.settings.defaults);
    let mut events = outgoing::wanted_of(&context.db, upstream.id, ids).await?;
    events.retain(|event| settings.filter.matches(event));
    let mut sent = UploadTally::default();
    if !events.is_empty() {
        let connection = context.connections.get(upstream).await?;
        let mut uploader = Uploader::new(&context.db, upstream.id, None, &connection, &settings);
        uploader.upload(&events, &mut sent).await?;
    }
    let mut result = result(sent);
    result["wanted"] = json!(events.len());
    Ok(result)
}

/// The longest that a job without a lane may take.
const JOB_WITHIN: Duration = Duration::from_secs(100);

/// Runs a job that holds no lane. Transient errors are retried; others kill the job.
pub(super) async fn attempt(
    context: &Context,
    job: &Job,
    work: impl Future<Output = Result<Value, StepError>>,
) {
    outcome::attempt(&context.db, job, async {
        let result = tokio::select! {
            done = tokio::time::timeout(JOB_WITHIN, work) => {
                done.unwrap_or(Err(StepError::Silent("the job took longer than 100 s".to_owned())))
            }
            () = context.stopping.cancelled() => Err(StepError::Stopping),
        };
        match result {
            Ok(result) => Outcome::Done(result),
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
