//! Runs of the upload lane: the one uploader of an upstream.

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::{
    mirror::{
        event::{
            EventId,
            outgoing::{self, Begun, Candidate, Candidates, UploadTally, Waiting},
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
    upload::{Accepts, Batch, Item, State, Stop, Uploader},
};
use crate::runtime::{Outcome, outcome};

/// The most events of one run, and the most events behind the lane's position.
const RUN: i64 = 1000;
/// The pause after the connection was lost in a run that stored answers.
const AFTER_LOSS: Duration = Duration::from_secs(5);
/// The attempts of an event with which the connection was lost, after which it is sent alone.
const ALONE_AFTER: u32 = 4;

/// What a run sends, and what it has then reached.
struct Plan {
    batches: Vec<Batch>,
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
    let plan = plan(run, &accepts, begun).await?;
    let (stop, judged) = if plan.batches.is_empty() {
        (Stop::Done, 0)
    } else {
        send(run, &accepts, &plan.batches, report).await?
    };
    let mut result = result(report.uploads);
    let ending = ending(&plan, stop, judged, report)?;
    result["position"] = json!(plan.up_to);
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

async fn plan(run: &Run<'_>, accepts: &Accepts, begun: Begun) -> Result<Plan, StepError> {
    let waiting = outgoing::waiting(&run.context.db, run.upstream.id, RUN).await?;
    let found = new_events(run, accepts, begun.position).await?;
    let size = usize::try_from(run.settings.upload_batch_size).unwrap_or(usize::MAX);
    let (suspects, waiting): (Vec<Waiting>, Vec<Waiting>) =
        waiting.into_iter().partition(|one| one.is_suspect);
    let mut batches = in_batches(waiting, |_| size, |one| one.is_sent);
    batches.extend(walked(found.events, found.up_to, size, begun.sending));
    batches.extend(in_batches(suspects, |one| halved(size, one.attempts), |_| true));
    Ok(Plan { batches, up_to: found.up_to, more: found.more })
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

/// Splits waiting events into batches; neighbours share a batch of the size that each allows.
fn in_batches(
    waiting: Vec<Waiting>,
    size: impl Fn(&Waiting) -> usize,
    was_sent: impl Fn(&Waiting) -> bool,
) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut room = 0;
    let mut sizes = 0;
    for one in waiting {
        let wanted = size(&one);
        if room == 0 || wanted != sizes {
            batches.push(Batch { items: Vec::new(), up_to: None });
            (room, sizes) = (wanted, wanted);
        }
        room -= 1;
        let was_sent = was_sent(&one);
        if let Some(batch) = batches.last_mut() {
            batch.items.push(Item { event: one.event, was_sent });
        }
    }
    batches
}

/// Splits new events into batches, in the order of their arrival. The last one reaches `up_to`.
fn walked(events: Vec<Candidate>, up_to: i64, size: usize, sending: i64) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    for Candidate { event, position } in events {
        if batches.last().is_none_or(|batch| batch.items.len() >= size) {
            batches.push(Batch { items: Vec::with_capacity(size), up_to: None });
        }
        if let Some(batch) = batches.last_mut() {
            batch.items.push(Item { event, was_sent: position <= sending });
            batch.up_to = Some(position);
        }
    }
    if let Some(last) = batches.last_mut() {
        last.up_to = Some(up_to);
    }
    batches
}

/// Returns how many events share a batch with one after whose attempts the connection was lost: half
/// as many after each attempt, and none after the fourth, so that the culprit is found.
fn halved(size: usize, attempts: i32) -> usize {
    match u32::try_from(attempts) {
        Ok(attempts) if attempts < ALONE_AFTER => (size >> attempts).max(1),
        _ => 1,
    }
}

async fn send(
    run: &Run<'_>,
    accepts: &Accepts,
    batches: &[Batch],
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
    let stop = uploader.upload(batches, || run.is_long(), &mut report.uploads).await?;
    Ok((stop, uploader.state.judged))
}

/// Decides how the job ends. An error is no failure of a run in which the upstream took or judged
/// events: the next job continues behind them.
fn ending(plan: &Plan, stop: Stop, judged: u64, report: &mut Report) -> Result<Ending, StepError> {
    let rests = Ending::Rests { is_complete: false };
    Ok(match stop {
        Stop::Done => {
            report.progress.upload_position = Some(plan.up_to);
            report.progress.upload_horizon = Some(plan.up_to);
            if plan.more { Ending::GoesOn(Duration::ZERO) } else { rests }
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

#[cfg(test)]
mod tests {
    use tender_jobs::mirror::event::Event;

    use super::*;

    fn event(number: u8) -> Event {
        Event {
            id: EventId([number; 32]),
            pubkey: [0; 32],
            created_at: 0,
            kind: 1,
            tags: Vec::new(),
            content: String::new(),
            sig: [0; 64],
        }
    }

    fn sizes(batches: &[Batch]) -> Vec<usize> {
        batches.iter().map(|batch| batch.items.len()).collect()
    }

    #[test]
    fn suspects_share_ever_smaller_batches_and_end_alone() {
        let halved = |attempts| halved(500, attempts);
        assert_eq!([1, 2, 3, 4, 5].map(halved), [250, 125, 62, 1, 1]);
        let suspect =
            |attempts| Waiting { event: event(1), attempts, is_suspect: true, is_sent: true };
        let waiting = [1, 1, 1, 4, 4, 1].map(suspect).to_vec();
        let size = |one: &Waiting| if one.attempts == 1 { 2 } else { 1 };
        assert_eq!(sizes(&in_batches(waiting, size, |_| true)), [2, 1, 1, 1, 1]);
    }

    #[test]
    fn the_last_batch_reaches_the_end_of_the_page() {
        let candidate = |number: u8| Candidate { event: event(number), position: number.into() };
        let batches = walked((1..=5).map(candidate).collect(), 9, 2, 3);
        assert_eq!(sizes(&batches), [2, 2, 1]);
        assert_eq!(
            batches.iter().map(|batch| batch.up_to).collect::<Vec<_>>(),
            [2, 4, 9].map(Some)
        );
        let was_sent = batches.iter().flat_map(|batch| &batch.items).map(|item| item.was_sent);
        assert_eq!(was_sent.collect::<Vec<_>>(), [true, true, true, false, false]);
    }
}
