//! Fetching by id: what a reconciliation found that we need. Every id that was asked for comes, or is
//! asked for once more, or is counted.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use serde_json::json;
use tender_jobs::event::{self, EventId, Limits};
use tokio::sync::mpsc;

use super::{
    connection::{Connection, Heard},
    error::StepError,
    intake::Intake,
};

/// Longest that one job fetches; what is stored by then, the next one does not need.
const ALL_WITHIN: Duration = Duration::from_mins(1);
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

/// Fetches the ids that come, `size` at a time, until nobody sends more.
pub(crate) async fn fetch(
    connection: &Connection,
    mut needed: mpsc::Receiver<EventId>,
    size: usize,
    limits: Limits,
    intake: &mut Intake,
) -> Result<Fetched, StepError> {
    let (mut fetched, mut missing, begun) = (Fetched::default(), Vec::new(), Instant::now());
    let mut ids = Vec::with_capacity(size);
    loop {
        let room = size - ids.len();
        let has_more = needed.recv_many(&mut ids, room).await > 0;
        if ids.len() == size || (!has_more && !ids.is_empty()) {
            missing.extend(batch(connection, &ids, limits, intake, &mut fetched).await?);
            ids.clear();
        }
        if !has_more {
            break;
        }
        if begun.elapsed() > ALL_WITHIN {
            fetched.is_cut = true;
            return Ok(fetched);
        }
    }
    for ids in missing.chunks(size) {
        let still = batch(connection, ids, limits, intake, &mut fetched).await?;
        fetched.unavailable += i64::try_from(still.len()).unwrap_or(i64::MAX);
    }
    Ok(fetched)
}

/// One REQ; the ids that did not come.
async fn batch(
    connection: &Connection,
    ids: &[EventId],
    limits: Limits,
    intake: &mut Intake,
    fetched: &mut Fetched,
) -> Result<Vec<EventId>, StepError> {
    match try_batch(connection, ids, limits, intake, fetched).await {
        Err(StepError::Auth(_)) => {
            connection.authenticated().await?;
            try_batch(connection, ids, limits, intake, fetched).await
        }
        ended => ended,
    }
}

async fn try_batch(
    connection: &Connection,
    ids: &[EventId],
    limits: Limits,
    intake: &mut Intake,
    fetched: &mut Fetched,
) -> Result<Vec<EventId>, StepError> {
    let mut missing: HashSet<EventId> = ids.iter().copied().collect();
    let mut subscription = connection.subscribe("fetch");
    let wanted: Vec<String> = ids.iter().map(ToString::to_string).collect();
    let most = ids.len() * 10;
    connection
        .send(&json!(["REQ", subscription.id(), { "ids": wanted, "limit": ids.len() }]))
        .await?;
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
                    intake.offer(event).await?;
                } else {
                    fetched.violations += 1;
                }
            }
            Heard::Eose => return Ok(missing.into_iter().collect()),
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
