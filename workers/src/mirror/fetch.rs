//! Fetches events by id, as a reconciliation finds them missing. An id that the upstream does not
//! deliver is requested a second time, and then reported as undelivered. An id whose retry is not due
//! is skipped.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::json;
use tender_jobs::mirror::{
    event::{EventId, Limits},
    filter::Filter,
};
use tokio::sync::{Mutex, mpsc};

use super::{
    connection::{Connection, Heard},
    error::StepError,
    intake::Intake,
    proof::Edges,
};

/// The longest duration of the fetches of one job. The next job skips the events that are stored by
/// then.
const ALL_WITHIN: Duration = Duration::from_mins(1);
/// The number of batches that are requested concurrently.
const IN_FLIGHT: usize = 2;
/// The longest wait between two messages of a batch.
const SILENCE: Duration = Duration::from_secs(10);

/// An upstream that delivers none of this many ids lists events that do not exist.
const PHANTOMS: usize = 1000;

/// What an event must satisfy.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    /// The filter of the lane.
    pub(crate) filter: &'a Filter,
    /// The limits of an event.
    pub(crate) limits: Limits,
}

/// The result of a fetch; the events go to the intake.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// Ids that the upstream listed and did not deliver in two requests.
    pub(crate) undelivered: Vec<EventId>,
    /// Ids that were not requested, because their retry is not due.
    pub(crate) skipped: Vec<EventId>,
    /// The number of delivered events.
    pub(crate) delivered: usize,
    /// The oldest and the newest of the delivered events.
    pub(crate) edges: Edges,
    /// The number of events that were not requested.
    pub(crate) violations: i64,
    /// Whether the time limit ended the fetch before all events had come.
    pub(crate) is_cut: bool,
}

/// How ids are fetched.
#[derive(Debug, Clone, Copy)]
pub(crate) struct How<'a> {
    /// The number of ids per request.
    pub(crate) size: usize,
    /// What an event must satisfy.
    pub(crate) wanted: Wanted<'a>,
    /// Ids whose retry is not due.
    pub(crate) waiting: &'a HashSet<EventId>,
}

/// Fetches the ids that arrive in `needed`, in batches of `size`, until its sender is dropped. The
/// upstream prepares a batch while we read the one before it.
pub(crate) async fn fetch(
    connection: &Connection,
    mut needed: mpsc::Receiver<EventId>,
    how: How<'_>,
    intake: &mut Intake,
) -> Result<Fetched, StepError> {
    let How { size, wanted, waiting } = how;
    let (mut fetched, mut missing, begun) = (Fetched::default(), Vec::new(), Instant::now());
    let (mut ids, mut is_open) = (Vec::with_capacity(size), true);
    let intake = Mutex::new(intake);
    let mut running = FuturesUnordered::new();
    while is_open || !running.is_empty() {
        let (has_room, room) = (running.len() < IN_FLIGHT, size - ids.len());
        tokio::select! {
            biased;
            Some(done) = running.next() => {
                missing.extend(fetched.take(done?));
                if fetched.delivered == 0 && missing.len() >= PHANTOMS {
                    return Err(phantoms(missing.len()));
                }
            }
            found = needed.recv_many(&mut ids, room), if is_open && has_room => {
                is_open = found > 0;
                let new = ids.len() - found.min(ids.len());
                fetched.skipped.extend(ids.extract_if(new.., |id| waiting.contains(id)));
            }
        }
        if ids.len() == size || (!is_open && !ids.is_empty()) {
            running.push(batch(connection, std::mem::take(&mut ids), wanted, Some(&intake)));
        }
        if begun.elapsed() > ALL_WITHIN {
            fetched.is_cut = true;
            return Ok(fetched);
        }
    }
    for ids in missing.chunks(size) {
        if begun.elapsed() > ALL_WITHIN {
            fetched.is_cut = true;
            break;
        }
        let batch = batch(connection, ids.to_vec(), wanted, Some(&intake)).await?;
        let undelivered = fetched.take(batch);
        fetched.undelivered.extend(undelivered);
    }
    Ok(fetched)
}

fn phantoms(listed: usize) -> StepError {
    StepError::Protocol(format!("{listed} listed ids were requested, and none was delivered"))
}

impl Fetched {
    /// Adds a batch. Returns the ids that were not delivered.
    fn take(&mut self, batch: Batch) -> Vec<EventId> {
        self.violations += batch.violations;
        self.delivered += batch.times.len();
        self.edges.extend(batch.times);
        batch.missing
    }
}

/// Requests events by their ids, and returns the times of those that come.
pub(crate) async fn times(
    connection: &Connection,
    ids: &[EventId],
    wanted: Wanted<'_>,
) -> Result<Vec<i64>, StepError> {
    Ok(batch(connection, ids.to_vec(), wanted, None).await?.times)
}

/// The intake that the batches of a fetch share.
type Shared<'i> = Option<&'i Mutex<&'i mut Intake>>;

/// The result of one REQ; its events went to the intake one by one.
struct Batch {
    /// The times that the delivered events claim, in Unix seconds.
    times: Vec<i64>,
    /// The requested ids that were not delivered.
    missing: Vec<EventId>,
    /// The number of events that were not requested.
    violations: i64,
}

/// Requests one batch. If the upstream requires authentication, waits for it and retries the
/// request.
async fn batch(
    connection: &Connection,
    ids: Vec<EventId>,
    wanted: Wanted<'_>,
    intake: Shared<'_>,
) -> Result<Batch, StepError> {
    match try_batch(connection, &ids, wanted, intake).await {
        Err(StepError::Auth(_)) => {
            connection.authenticated().await?;
            try_batch(connection, &ids, wanted, intake).await
        }
        ended => ended,
    }
}

async fn try_batch(
    connection: &Connection,
    ids: &[EventId],
    wanted: Wanted<'_>,
    intake: Shared<'_>,
) -> Result<Batch, StepError> {
    let mut missing: HashSet<EventId> = ids.iter().copied().collect();
    let mut subscription = connection.subscribe("fetch");
    let listed: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let most = ids.len() * 10;
    connection
        .send(&json!(["REQ", subscription.id(), { "ids": listed, "limit": ids.len() }]))
        .await?;
    let mut batch = Batch { times: Vec::new(), missing: Vec::new(), violations: 0 };
    let mut heard = 0;
    loop {
        match subscription.next(SILENCE).await? {
            Heard::Event(received) => {
                heard += 1;
                if heard > most {
                    return Err(StepError::Protocol(format!(
                        "{heard} events for {} requested ids, and no EOSE",
                        ids.len()
                    )));
                }
                let event = received.parse(wanted.limits);
                drop(received);
                let claims = match &event {
                    // An event outside the filter is not the one that the filter's set listed.
                    Ok(event) if !wanted.filter.matches(event) => None,
                    Ok(event) => Some((event.id, event.created_at)),
                    Err(unusable) => unusable.claims,
                };
                let Some((_, at)) = claims.filter(|(id, _)| missing.remove(id)) else {
                    batch.violations += 1;
                    continue;
                };
                batch.times.push(at);
                if let Some(intake) = intake {
                    intake.lock().await.offer(event).await?;
                }
            }
            Heard::Eose => {
                batch.missing.extend(missing);
                return Ok(batch);
            }
            Heard::Closed(why) => return Err(StepError::of_closed(&why)),
            _ => {}
        }
    }
}
