//! Jobs that upload: the runs of the upload lane, and lists that a reconciliation found.

use std::time::Duration;

use serde_json::json;
use tender_jobs::{
    event::{EventId, outgoing},
    lane::{Ending, Progress},
    queue::{self, Job, Settled},
    upstream,
};
use uuid::Uuid;

use super::{
    error::{StepError, delay},
    lane::{Done, Run},
    upload::Uploader,
};
use crate::{Context, settle};

/// Events of one run.
const RUN: i64 = 1000;

/// A run of the upload lane: what waits for another try first, then what arrived since.
pub(super) async fn run(run: &Run<'_>, progress: &mut Progress) -> Result<Done, StepError> {
    let (db, id) = (&run.context.db, run.upstream.id);
    let mut events = outgoing::pending(db, id, RUN).await?;
    let room = RUN - i64::try_from(events.len()).unwrap_or(RUN);
    let after = run.lease.lane.upload_position;
    let found = outgoing::candidates(db, id, &run.settings.filter, after, room.max(1)).await?;
    events.extend(found.events);
    let sent = events.len();
    if sent > 0 {
        let connection = run.context.connections.get(run.upstream).await?;
        let mut uploader = Uploader::new(db, id, &connection, run.settings);
        uploader.upload(&events, progress).await?;
    }
    // Only now: every one of them has a verdict, or a row that says that it is pending.
    progress.upload_position = Some(found.up_to);
    let ending = if found.more {
        Ending::GoesOn(Duration::ZERO)
    } else {
        Ending::Rests { is_complete: false }
    };
    let result = json!({
        "sent": sent, "accepted": progress.uploaded, "duplicate": progress.upload_duplicate,
        "rejected": progress.upload_rejected, "position": found.up_to,
    });
    Ok(Done { ending, more: Vec::new(), result })
}

/// Uploads a list, as far as it is wanted still.
pub(super) async fn upload_events(context: &Context, job: &Job, upstream: Uuid, ids: &[String]) {
    let mut progress = Progress::default();
    let work = async {
        let Some(upstream) = upstream::find(&context.db, upstream).await? else {
            return Ok(json!({ "skipped": "the relay is gone" }));
        };
        if !upstream.enabled || !upstream.direction.uploads() {
            return Ok(json!({ "skipped": "the relay takes no uploads any more" }));
        }
        let settings = upstream.settings(&context.settings.sync.settings);
        let ids: Vec<EventId> = ids.iter().filter_map(|id| EventId::parse(id)).collect();
        let mut events = outgoing::wanted_of(&context.db, upstream.id, &ids).await?;
        events.retain(|event| settings.filter.matches(event));
        if !events.is_empty() {
            let connection = context.connections.get(&upstream).await?;
            let mut uploader = Uploader::new(&context.db, upstream.id, &connection, &settings);
            uploader.upload(&events, &mut progress).await?;
        }
        Ok(json!({
            "wanted": events.len(), "accepted": progress.uploaded,
            "duplicate": progress.upload_duplicate, "rejected": progress.upload_rejected,
        }))
    };
    Box::pin(attempt(context, job, 3, work)).await;
}

/// Runs a job that holds no lane: transient errors are tried again, others end it, visibly.
pub(super) async fn attempt(
    context: &Context,
    job: &Job,
    attempts: i32,
    work: impl Future<Output = Result<serde_json::Value, StepError>>,
) {
    match settle::persist(job, || queue::start(&context.db, job)).await {
        Some(true) => {}
        Some(false) => return settle::lease_lost(job),
        None => return,
    }
    let guarded = async {
        tokio::select! {
            done = tokio::time::timeout(Duration::from_secs(100), work) => {
                done.unwrap_or(Err(StepError::Silent("the job took longer than 100 s".to_owned())))
            }
            () = context.stopping.cancelled() => Err(StepError::Stopping),
        }
    };
    let outcome = match settle::catch_panic(guarded).await {
        Ok(outcome) => outcome,
        Err(panic) => Err(StepError::Refused(panic)),
    };
    let settled = settle::persist(job, || async {
        let db = &context.db;
        match &outcome {
            Ok(result) => queue::finish(db, job, result).await,
            Err(StepError::Stopping) => queue::give_back(db, job).await,
            Err(error) if error.is_transient() && job.attempt < attempts => {
                let mut connection = db.acquire().await?;
                let after = delay(job.attempt, 0.0);
                queue::retry_later(&mut connection, job, after, &error.to_string()).await
            }
            Err(error) => queue::kill(db, job, &error.to_string()).await,
        }
    });
    if let Err(error) = &outcome {
        tracing::warn!(job.id, job.queue, job.attempt, %error, "a job did not come to its end");
    }
    settle::count(job, if outcome.is_ok() { "done" } else { "failed" });
    if let Some(Settled::LeaseLost) = settled.await {
        settle::lease_lost(job);
    }
}
