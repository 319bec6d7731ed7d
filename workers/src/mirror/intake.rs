//! Intake: the one path of received events into the store. Events are looked up, verified on all
//! cores, and stored in batches; while tenants wait for changes, batches leave them a core. A slow
//! store slows the upstream down, because [`Intake::offer`] waits.

mod verify;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tender_jobs::mirror::{
    event::{self, Batch, Event, EventId, Gate, Limits, Reason, Refused, Stored, Tally, Unusable},
    lane::Lease,
};
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    task::{JoinError, JoinSet},
};
use uuid::Uuid;

use super::{connection::storing, error::StepError, lane::under_lease};
use crate::runtime::manners;

/// The events of one batch.
pub(crate) const BATCH: usize = 500;
/// The bytes of one batch, apart from its last event.
const BATCH_BYTES: usize = 1024 * 1024;
/// The longest that an event waits for its batch to fill, if events arrive one by one.
pub(crate) const FLUSH_AFTER: Duration = Duration::from_millis(100);
/// Batches in progress at the same time: one is verified while another is stored.
const AT_ONCE: usize = 3;
/// The batches of history at the gate, in the whole process: one is judged while another waits.
static HISTORY_AT_GATE: Semaphore = Semaphore::const_new(2);

/// The upstream that events come from, and the lane that receives them.
#[derive(Debug, Clone)]
struct Source {
    db: PgPool,
    upstream: Uuid,
    lease: Option<Lease>,
    live_lane: Option<Uuid>,
    gate: Option<Arc<dyn Gate>>,
    /// Whether nobody waits for the events, so that their batches take turns.
    is_history: bool,
}

/// Takes in the events of one upstream.
#[derive(Debug)]
pub(crate) struct Intake {
    source: Source,
    events: Vec<Event>,
    bytes: usize,
    unusable: Vec<Unusable>,
    running: JoinSet<Result<Tally, StepError>>,
    tally: Tally,
}

impl Intake {
    /// Events are stored and counted under the lease of the lane that receives them; without a
    /// lease, they are counted on no lane.
    pub(crate) fn new(db: &PgPool, upstream: Uuid, lease: Option<&Lease>) -> Self {
        let lease = lease.cloned();
        Self::of(Source {
            db: db.clone(),
            upstream,
            lease,
            live_lane: None,
            gate: None,
            is_history: false,
        })
    }

    /// Lets a gate decide which events are stored.
    pub(crate) fn through(mut self, gate: Option<Arc<dyn Gate>>) -> Self {
        self.source.gate = gate;
        self
    }

    /// Lets the batches take turns while tenants wait for changes; nobody waits for history.
    pub(crate) fn of_history(mut self) -> Self {
        self.source.is_history = true;
        self
    }

    fn of(source: Source) -> Self {
        Self {
            source,
            events: Vec::new(),
            bytes: 0,
            unusable: Vec::new(),
            running: JoinSet::new(),
            tally: Tally::default(),
        }
    }

    /// Takes an event, or one that cannot be used. Waits while three batches are in progress.
    pub(crate) async fn offer(&mut self, event: Result<Event, Unusable>) -> Result<(), StepError> {
        match event {
            Ok(event) => {
                self.bytes += event.bytes();
                self.events.push(event);
            }
            Err(unusable) => self.unusable.push(unusable),
        }
        let is_full = self.events.len() + self.unusable.len() >= BATCH;
        if is_full || self.bytes >= BATCH_BYTES {
            self.dispatch().await?;
        }
        Ok(())
    }

    async fn dispatch(&mut self) -> Result<(), StepError> {
        while self.running.len() >= AT_ONCE {
            self.join().await?;
        }
        let events = std::mem::take(&mut self.events);
        let unusable = std::mem::take(&mut self.unusable);
        let (source, is_history) = (self.source.clone(), self.source.is_history);
        let held = storing(std::mem::take(&mut self.bytes), is_history).await;
        let take_in = async |cores| {
            let _until_stored = held;
            take_in(source, events, unusable, cores).await
        };
        self.running.spawn(async move {
            if is_history {
                manners::in_turn(take_in).await
            } else {
                take_in(manners::cores()).await
            }
        });
        Ok(())
    }

    async fn join(&mut self) -> Result<(), StepError> {
        if let Some(ended) = self.running.join_next().await {
            self.tally.add(&ended.map_err(|error| task_failed(&error))??);
        }
        Ok(())
    }

    /// Begins to store what waits for its batch to fill, and fails if a batch that was being stored has
    /// failed. Does not wait, unless three batches are in progress.
    pub(crate) async fn flush(&mut self) -> Result<(), StepError> {
        if !self.events.is_empty() || !self.unusable.is_empty() {
            self.dispatch().await?;
        }
        self.reap().map(drop)
    }

    /// Notes the batches that were stored meanwhile, and fails if one has failed. Returns whether nothing
    /// is being stored.
    pub(crate) fn reap(&mut self) -> Result<bool, StepError> {
        while let Some(ended) = self.running.try_join_next() {
            self.tally.add(&ended.map_err(|error| task_failed(&error))??);
        }
        Ok(self.running.is_empty())
    }

    /// Whether no event waits for its batch to fill.
    pub(crate) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.unusable.is_empty()
    }

    /// Returns the counts of stored batches since the last call.
    pub(crate) fn take_tally(&mut self) -> Tally {
        std::mem::take(&mut self.tally)
    }

    /// Waits until every event has an outcome. Returns the counts since the last call; the lane has
    /// them already.
    pub(crate) async fn settle(&mut self) -> Result<Tally, StepError> {
        if !self.events.is_empty() || !self.unusable.is_empty() {
            self.dispatch().await?;
        }
        while !self.running.is_empty() {
            self.join().await?;
        }
        Ok(std::mem::take(&mut self.tally))
    }
}

/// Reports a panic like a refused statement, so that the job is retried.
fn task_failed(error: &JoinError) -> sqlx::Error {
    sqlx::Error::Protocol(format!("a batch of events was not stored: {error}"))
}

/// Looks up, verifies on so many cores, and stores one batch.
async fn take_in(
    source: Source,
    events: Vec<Event>,
    unusable: Vec<Unusable>,
    cores: usize,
) -> Result<Tally, StepError> {
    let mut tally = Tally::default();
    let unknown = without_known(&source, events, &mut tally).await?;
    let verified = verify::verify(unknown, cores).await.map_err(|error| task_failed(&error))?;
    let refused = refused(&unusable, verified.forged, &mut tally);
    let batch = Batch {
        upstream: source.upstream,
        lane: source.lease.as_ref(),
        live_lane: source.live_lane,
        events: &verified.genuine,
        refused: &refused,
        before: tally.clone(),
        gate: source.gate.as_deref(),
    };
    let place = place_at_the_gate(&source, verified.genuine.len()).await;
    let stored = under_lease(event::store(&source.db, batch).await?)?;
    drop(place);
    for (event, stored) in verified.genuine.iter().zip(stored) {
        tally.count(stored);
        if stored == Stored::Refused(Reason::RefusedByStore) {
            let (id, upstream) = (event.id, source.upstream);
            tracing::warn!(%id, %upstream, "the database refused an event; its log has the reason");
        }
    }
    measure(&tally);
    Ok(tally)
}

/// Waits for a place at the gate, if the events are history and a gate judges them. The lock of admission lets one batch pass
/// at a time; those that wait for it hold connections, and live events wait behind them.
async fn place_at_the_gate(source: &Source, events: usize) -> Option<SemaphorePermit<'static>> {
    if source.gate.is_none() || !source.is_history || events == 0 {
        return None;
    }
    HISTORY_AT_GATE.acquire().await.ok() // it is never closed
}

/// Drops events that need no further work; they are duplicates.
async fn without_known(
    source: &Source,
    mut events: Vec<Event>,
    tally: &mut Tally,
) -> Result<Vec<Event>, StepError> {
    let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
    let known = match &source.gate {
        Some(gate) => gate.known(&source.db, source.upstream, &ids).await?,
        None => event::known(&source.db, source.upstream, &ids).await?.ids,
    };
    events.retain(|event| {
        let is_known = known.contains(&event.id);
        if is_known {
            tally.count(Stored::Duplicate);
        }
        !is_known
    });
    Ok(events)
}

/// Counts the events that are refused before the store. Returns those that say which event they
/// are.
fn refused(unusable: &[Unusable], forged: Vec<Refused>, tally: &mut Tally) -> Vec<Refused> {
    let unusable = unusable.iter().map(|one| (one.reason, one.refused()));
    let forged = forged.into_iter().map(|one| (one.reason, Some(one)));
    let all = forged.chain(unusable);
    all.filter_map(|(reason, refused)| {
        tally.count(Stored::Refused(reason));
        refused
    })
    .collect()
}

/// Adds a stored batch to the metrics of this process.
pub(crate) fn measure(tally: &Tally) {
    let count = |outcome: &'static str, events: i64| {
        metrics::counter!("tender_events_total", "outcome" => outcome)
            .increment(u64::try_from(events).unwrap_or(0));
    };
    count("stored", tally.stored);
    count("duplicate", tally.duplicate);
    for (reason, events) in &tally.rejected {
        count(reason.as_str(), *events);
    }
}

/// Takes in events that waited in the queue, each as JSON text. They are counted on the live lane.
pub(crate) async fn take_in_texts(
    db: &PgPool,
    upstream: Uuid,
    live_lane: Option<Uuid>,
    texts: &[String],
    limits: Limits,
    gate: Option<Arc<dyn Gate>>,
) -> Result<Tally, StepError> {
    let source =
        Source { db: db.clone(), upstream, lease: None, live_lane, gate, is_history: false };
    let mut intake = Intake::of(source);
    for text in texts {
        intake.offer(event::parse(text, limits)).await?;
    }
    intake.settle().await
}
