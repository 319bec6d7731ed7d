//! Fetches events by id, as a reconciliation finds them missing. An id that the upstream does not
//! deliver is requested a second time, and then counted as unavailable.

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
};

/// The longest duration of the fetches of one job. The next job skips the events that are stored by
/// then.
const ALL_WITHIN: Duration = Duration::from_mins(1);
/// The number of batches that are requested concurrently.
const IN_FLIGHT: usize = 2;
/// The longest wait between two messages of a batch.
const SILENCE: Duration = Duration::from_secs(10);

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
    /// The number of ids that the upstream listed and did not deliver in two requests.
    pub(crate) unavailable: i64,
    /// The number of events that were not requested.
    pub(crate) violations: i64,
    /// Whether the time limit ended the fetch before all events had come.
    pub(crate) is_cut: bool,
}

/// Fetches the ids that arrive in `needed`, in batches of `size`, until its sender is dropped. The
/// upstream prepares a batch while we read the one before it.
pub(crate) async fn fetch(
    connection: &Connection,
    mut needed: mpsc::Receiver<EventId>,
    size: usize,
    wanted: Wanted<'_>,
    intake: &mut Intake,
) -> Result<Fetched, StepError> {
    let (mut fetched, mut missing, begun) = (Fetched::default(), Vec::new(), Instant::now());
    let (mut ids, mut is_open) = (Vec::with_capacity(size), true);
    let intake = Mutex::new(intake);
    let mut running = FuturesUnordered::new();
    while is_open || !running.is_empty() {
        let (has_room, room) = (running.len() < IN_FLIGHT, size - ids.len());
        tokio::select! {
            biased;
            Some(done) = running.next() => {
                let batch: Batch = done?;
                missing.extend(batch.missing);
                fetched.violations += batch.violations;
            }
            found = needed.recv_many(&mut ids, room), if is_open && has_room => is_open = found > 0,
        }
        if ids.len() == size || (!is_open && !ids.is_empty()) {
            running.push(batch(connection, std::mem::take(&mut ids), wanted, &intake));
        }
        if begun.elapsed() > ALL_WITHIN {
            fetched.is_cut = true;
            return Ok(fetched);
        }
    }
    for ids in missing.chunks(size) {
        let batch = batch(connection, ids.to_vec(), wanted, &intake).await?;
        fetched.unavailable += i64::try_from(batch.missing.len()).unwrap_or(i64::MAX);
        fetched.violations += batch.violations;
    }
    Ok(fetched)
}

/// The result of one REQ; its events went to the intake one by one.
struct Batch {
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
    intake: &Mutex<&mut Intake>,
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
    intake: &Mutex<&mut Intake>,
) -> Result<Batch, StepError> {
    let mut missing: HashSet<EventId> = ids.iter().copied().collect();
    let mut subscription = connection.subscribe("fetch");
    let listed: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let most = ids.len() * 10;
    connection
        .send(&json!(["REQ", subscription.id(), { "ids": listed, "limit": ids.len() }]))
        .await?;
    let mut batch = Batch { missing: Vec::new(), violations: 0 };
    let mut heard = 0;
    loop {
        match subscription.next(SILENCE).await? {
            Heard::Event(received) => {
                heard += 1;
                let event = received.parse(wanted.limits);
                drop(received);
                let id = match &event {
                    // An event outside the filter is not the one that the filter's set listed.
                    Ok(event) => wanted.filter.matches(event).then_some(event.id),
                    Err(unusable) => unusable.claims.map(|(id, _)| id),
                };
                if id.is_some_and(|id| missing.remove(&id)) {
                    intake.lock().await.offer(event).await?;
                } else {
                    batch.violations += 1;
                }
            }
            Heard::Eose => {
                batch.missing.extend(missing);
                return Ok(batch);
            }
            Heard::Closed(why) => return Err(StepError::of_closed(&why)),
            _ => {}
        }
        if heard > most {
            return Err(StepError::Protocol(format!(
                "{heard} events for {} requested ids, and no EOSE",
                ids.len()
            )));
        }
    }
}
