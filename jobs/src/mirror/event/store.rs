//! Storing: every event enters the store through [`store`]. A batch takes one transaction, or two
//! if it holds deletions (kind 5). Its result does not depend on the order of arrival or on
//! concurrent batches:
//!
//! - `lock`: a transaction that stores shares the store's lock; one that deletes holds it alone. A
//!   deletion and its target therefore always see each other.
//! - `heads`: the newest version of a replaceable or addressable key wins.
//! - `sieve`: the rules that an event must pass. `insert`: the rows of an event.
//! - `known`: ids that need no further work.
//! - `part`: the transactions of a batch. No event can stop a lane: if the database refuses a value,
//!   the batch is halved until the event is alone. This event is rejected as `refused-by-store`.
//!
//! Each transaction ends with its counters: those of the lane, then those of the minute and the
//! upstream. An event and its count are therefore stored together or not at all.
//!
//! Locks are taken in this order, so that no two transactions wait for each other: the upstream's
//! row (shared), the store's lock, heads by key, events by time and id, the keys of upload jobs,
//! the lane's row, the rows of the statistics.

mod columns;
mod heads;
mod insert;
mod known;
mod lock;
mod part;
mod sieve;

use std::collections::HashMap;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Event, EventId, Gate, Judged, Reason, Tally, deletion, stats};
use crate::{
    mirror::{
        contended,
        lane::{self, Lease},
    },
    queue::Settled,
};
use part::Part;
use sieve::Sieve;

pub(crate) use columns::{column, rows_of};
pub(super) use known::REMEMBERED;
pub use known::{Known, Refused, known};
pub(super) use lock::{LOCK, alone, begin, shared};
pub(crate) use sieve::deleted;

/// The outcome of an event. An id without one was stored before.
type Outcomes = HashMap<EventId, Stored>;

/// Events of one upstream that are stored together: at most a few hundred.
#[derive(Debug, Clone)]
pub struct Batch<'a> {
    /// The upstream that sent the events.
    pub upstream: Uuid,
    /// The lease of the lane that received the events. The batch is stored only under this lease,
    /// and is counted on the lane. `None` if no lane is held.
    pub lane: Option<&'a Lease>,
    /// The live lane that the batch is counted on, whoever holds it; `None` for other batches.
    pub live_lane: Option<Uuid>,
    /// Events whose id and signature are verified.
    pub events: &'a [Event],
    /// Events that were refused before.
    pub refused: &'a [Refused],
    /// Counts of the received events that have an outcome already: duplicates that
    /// [`known`](fn@known) found, and refused events. They are stored with those of the batch.
    pub before: Tally,
    /// Decides which events are stored; `None` stores all that pass the store's rules.
    pub gate: Option<&'a dyn Gate>,
}

impl<'a> Batch<'a> {
    /// A batch without a lane, in which nothing was refused before.
    pub fn new(upstream: Uuid, events: &'a [Event]) -> Self {
        Self {
            upstream,
            lane: None,
            live_lane: None,
            events,
            refused: &[],
            before: Tally::default(),
            gate: None,
        }
    }
}

/// The outcome of storing an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stored {
    /// The event was new and is stored now.
    New,
    /// The event was stored before, or is known and not wanted.
    Duplicate,
    /// The event is not stored. An event from the future is accepted later, when its time has come.
    Refused(Reason),
}

/// Stores a batch, counts it, and returns the outcomes in the order of its events. Returns
/// [`Settled::LeaseLost`] if the batch has a lane and its lease is over; then the caller must stop.
///
/// # Errors
/// A transaction may fail, or lose the lease, after others of the batch have committed.
/// A batch that is stored again stores nothing twice; its events are counted as duplicates.
pub async fn store(db: &PgPool, batch: Batch<'_>) -> Result<Settled<Vec<Stored>>, sqlx::Error> {
    let mut outcomes = Outcomes::new();
    let mut parts = Part::of(&batch);
    while let Some(part) = parts.pop() {
        match contended::retried(|| store_part(db, &batch, &part)).await {
            Ok(Settled::Written(of_part)) => outcomes.extend(of_part),
            Ok(Settled::LeaseLost) => return Ok(Settled::LeaseLost),
            Err(error) if part::is_of_value(&error) => {
                let culprit = part.culprit();
                outcomes.extend(culprit.map(|event| (event.id, part::REFUSED)));
                parts.extend(part.smaller().ok_or(error)?);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(Settled::Written(of_each(batch.events.iter(), outcomes)))
}

/// Runs one transaction.
async fn store_part(
    db: &PgPool,
    batch: &Batch<'_>,
    part: &Part<'_>,
) -> Result<Settled<Outcomes>, sqlx::Error> {
    let mut tx = lock::begin(db, batch.upstream).await?;
    let Settled::Written(judged) = judge(&mut tx, batch, part).await? else {
        return Ok(Settled::LeaseLost);
    };
    let (part, barred) = through_gate(part, judged.as_deref());
    let mut outcomes = if part.are_deletions {
        store_deletions(&mut tx, batch.upstream, &part).await?
    } else {
        store_others(&mut tx, batch.upstream, &part).await?
    };
    if let Some(judged) = judged {
        tell_gate(&mut tx, &*judged, &part, &outcomes).await?;
    }
    let mut tally = part.tally.clone();
    for outcome in of_each(part.events.iter().copied(), outcomes.clone()) {
        tally.count(outcome);
    }
    for id in barred {
        tally.count(Stored::Refused(Reason::NotAdmitted));
        outcomes.insert(id, Stored::Refused(Reason::NotAdmitted));
    }
    if count(&mut tx, batch, &tally).await? == Settled::LeaseLost {
        return Ok(Settled::LeaseLost); // rolls back the events too
    }
    tx.commit().await?;
    Ok(Settled::Written(outcomes))
}

/// Lets the batch's gate judge the events of the part; `None` if the batch has no gate.
async fn judge<'e>(
    tx: &mut PgConnection,
    batch: &Batch<'_>,
    part: &Part<'e>,
) -> Result<Settled<Option<Box<dyn Judged + 'e>>>, sqlx::Error> {
    let Some(gate) = batch.gate else { return Ok(Settled::Written(None)) };
    Ok(gate.judge(tx, batch.upstream, &part.events).await?.map(Some))
}

/// Returns the part without the events that the gate bars, and the ids of those.
fn through_gate<'a>(part: &Part<'a>, judged: Option<&dyn Judged>) -> (Part<'a>, Vec<EventId>) {
    let mut part = part.clone();
    let Some(judged) = judged else { return (part, Vec::new()) };
    let barred = part.events.extract_if(.., |event| !judged.admitted().contains(&event.id));
    let barred = barred.map(|event| event.id).collect();
    (part, barred)
}

/// Tells the gate which events of the part are in the store.
async fn tell_gate(
    tx: &mut PgConnection,
    judged: &dyn Judged,
    part: &Part<'_>,
    outcomes: &Outcomes,
) -> Result<(), sqlx::Error> {
    let is_refused = |event: &&Event| matches!(outcomes.get(&event.id), Some(Stored::Refused(_)));
    let there: Vec<&Event> = part.events.iter().copied().filter(|e| !is_refused(e)).collect();
    let is_new = |event: &&&Event| outcomes.get(&event.id) == Some(&Stored::New);
    let new = there.iter().filter(is_new).map(|event| event.id).collect();
    judged.stored(tx, &there, &new).await
}

async fn store_others(
    tx: &mut PgConnection,
    upstream: Uuid,
    part: &Part<'_>,
) -> Result<Outcomes, sqlx::Error> {
    if part.events.is_empty() && part.refused.is_empty() {
        return Ok(Outcomes::new());
    }
    lock::shared(tx).await?;
    let mut sieve = Sieve::new(tx, &part.events).await?;
    let deleted = sieve::deleted(tx, sieve.kept()).await?;
    let winners = heads::win(tx, sieve.kept()).await?;
    sieve.refuse(|event| deleted.contains(&event.id).then_some(Reason::Deleted));
    let is_beaten = |event: &Event| event.d_tag().is_some() && !winners.contains(&event.id);
    sieve.refuse(|event| is_beaten(event).then_some(Reason::Superseded));
    let new = insert::insert(tx, upstream, sieve.kept()).await?;
    let refused = [sieve.refused(), part.refused.as_slice()].concat();
    known::remember(tx, upstream, &refused, sieve.now()).await?;
    Ok(sieve.outcomes(new))
}

async fn store_deletions(
    tx: &mut PgConnection,
    upstream: Uuid,
    part: &Part<'_>,
) -> Result<Outcomes, sqlx::Error> {
    lock::alone(tx).await?;
    let sieve = Sieve::new(tx, &part.events).await?;
    let new = insert::insert(tx, upstream, sieve.kept()).await?;
    deletion::apply(tx, sieve.kept()).await?;
    known::remember(tx, upstream, sieve.refused(), sieve.now()).await?;
    Ok(sieve.outcomes(new))
}

/// Returns the outcome of each event. A second copy of a new event is a duplicate of the first.
fn of_each<'a>(events: impl Iterator<Item = &'a Event>, mut outcomes: Outcomes) -> Vec<Stored> {
    let outcome = |event: &Event| match outcomes.get(&event.id).copied() {
        Some(Stored::New) => {
            outcomes.insert(event.id, Stored::Duplicate);
            Stored::New
        }
        outcome => outcome.unwrap_or(Stored::Duplicate),
    };
    events.map(outcome).collect()
}

async fn count(
    tx: &mut PgConnection,
    batch: &Batch<'_>,
    tally: &Tally,
) -> Result<Settled<()>, sqlx::Error> {
    if let Some(lease) = batch.lane
        && lane::count(&mut *tx, lease, tally).await? == Settled::LeaseLost
    {
        return Ok(Settled::LeaseLost);
    }
    if let Some(lane) = batch.live_lane {
        lane::count_live(&mut *tx, lane, tally).await?;
    }
    stats::note(tx, batch.upstream, tally).await?;
    Ok(Settled::Written(()))
}
