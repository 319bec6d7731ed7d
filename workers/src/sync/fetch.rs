//! Fetching by id: what a reconciliation found that we need. Every id that was asked for comes, or is
//! asked for once more, or is counted.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use futures_util::{StreamExt, stream::FuturesUnordered};
use serde_json::json;
use tender_jobs::event::{self, Event, EventId, Limits, Unusable};
use tokio::sync::mpsc;

use super::{
    connection::{Connection, Heard},
    error::StepError,
    intake::Intake,
};

/// Longest that one job fetches; what is stored by then, the next one does not need.
const ALL_WITHIN: Duration = Duration::from_mins(1);
/// Batches that the relay works on at the same time.
const IN_FLIGHT: usize = 2;
/// Longest silence while a batch comes.
const SILENCE: Duration = Duration::from_secs(10);

/// What fetching came to.
#[derive(Debug, Default)]
pub(crate) struct Fetched {
    /// Ids that the relay listed and did not deliver, asked twice.
    pub(crate) unavailable: i64,
    /// Events that nobody had asked for.
    pub(crate) violations: i64,
    /// There was more than fits into one job.
    pub(crate) is_cut: bool,
}

/// Fetches the ids that come, `size` at a time, until nobody sends more. The relay works on the next
/// batch while we read the last.
pub(crate) async fn fetch(
    connection: &Connection,
    mut needed: mpsc::Receiver<EventId>,
    size: usize,
    limits: Limits,
    intake: &mut Intake,
) -> Result<Fetched, StepError> {
    let (mut fetched, mut missing, begun) = (Fetched::default(), Vec::new(), Instant::now());
    let (mut ids, mut is_open) = (Vec::with_capacity(size), true);
    let mut running = FuturesUnordered::new();
    while is_open || !running.is_empty() {
        let (has_room, wanted) = (running.len() < IN_FLIGHT, size - ids.len());
        tokio::select! {
            biased;
            Some(done) = running.next() => {
                let batch: Batch = done?;
                missing.extend(batch.missing);
                fetched.violations += batch.violations;
                for event in batch.events {
                    intake.offer(event).await?;
                }
            }
            found = needed.recv_many(&mut ids, wanted), if is_open && has_room => is_open = found > 0,
        }
        if ids.len() == size || (!is_open && !ids.is_empty()) {
            running.push(batch(connection, std::mem::take(&mut ids), limits));
        }
        if begun.elapsed() > ALL_WITHIN {
            fetched.is_cut = true;
            return Ok(fetched);
        }
    }
    for ids in missing.chunks(size) {
        let batch = batch(connection, ids.to_vec(), limits).await?;
        fetched.unavailable += i64::try_from(batch.missing.len()).unwrap_or(i64::MAX);
        fetched.violations += batch.violations;
        for event in batch.events {
            intake.offer(event).await?;
        }
    }
    Ok(fetched)
}

/// What one REQ brought.
struct Batch {
    events: Vec<Result<Event, Unusable>>,
    /// Ids that did not come.
    missing: Vec<EventId>,
    /// Events that nobody had asked for.
    violations: i64,
}

/// One REQ; once more after authentication, where the relay wants that.
async fn batch(
    connection: &Connection,
    ids: Vec<EventId>,
    limits: Limits,
) -> Result<Batch, StepError> {
    match try_batch(connection, &ids, limits).await {
        Err(StepError::Auth(_)) => {
            connection.authenticated().await?;
            try_batch(connection, &ids, limits).await
        }
        ended => ended,
    }
}

async fn try_batch(
    connection: &Connection,
    ids: &[EventId],
    limits: Limits,
) -> Result<Batch, StepError> {
    let mut missing: HashSet<EventId> = ids.iter().copied().collect();
    let mut subscription = connection.subscribe("fetch");
    let wanted: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let most = ids.len() * 10;
    connection
        .send(&json!(["REQ", subscription.id(), { "ids": wanted, "limit": ids.len() }]))
        .await?;
    let mut batch =
        Batch { events: Vec::with_capacity(ids.len()), missing: Vec::new(), violations: 0 };
    let mut heard = 0;
    loop {
        match subscription.next(SILENCE).await? {
            Heard::Event(text) => {
                heard += 1;
                let event = event::parse(&text, limits);
                let id = match &event {
                    Ok(event) => Some(event.id),
                    Err(unusable) => unusable.claims.map(|(id, _)| id),
                };
                if id.is_some_and(|id| missing.remove(&id)) {
                    batch.events.push(event);
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
                "{heard} events for {} ids, and no end",
                ids.len()
            )));
        }
    }
}
