//! Events of a standing subscription that go into the queue together.

use std::sync::Arc;

use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        event::{self, EventId, Gate, Limits, Refused, Stored, Tally},
        filter::Filter,
        lane,
        work::Work,
    },
    queue,
};
use uuid::Uuid;

use crate::mirror::{
    connection::Received,
    error::StepError,
    intake::{BATCH, measure},
};

/// The most bytes of events in one job, apart from the last event.
const MAX_BYTES: usize = 1024 * 1024;

/// Received events. Only those that may be new wait for a job.
pub(super) struct Batch<'a> {
    filter: &'a Filter,
    limits: Limits,
    /// Knows which events need no further work; `None` for the store's rules.
    gate: Option<Arc<dyn Gate>>,
    /// They hold their bytes of the connection's budget until they are in the queue.
    events: Vec<(EventId, Received)>,
    bytes: usize,
    refused: Vec<Refused>,
    tally: Tally,
    violations: i64,
}

impl<'a> Batch<'a> {
    pub(super) fn new(filter: &'a Filter, limits: Limits, gate: Option<Arc<dyn Gate>>) -> Self {
        let (events, refused, tally) = (Vec::new(), Vec::new(), Tally::default());
        Self { filter, limits, gate, events, bytes: 0, refused, tally, violations: 0 }
    }

    /// Adds an event. An event outside the filter of the lane was not requested, and is dropped.
    pub(super) fn add(&mut self, received: Received) {
        match received.parse(self.limits) {
            Ok(event) if self.filter.matches(&event) => {
                self.bytes += received.json().map_or(0, str::len);
                self.events.push((event.id, received));
            }
            Ok(_) => self.violations += 1,
            Err(unusable) => {
                self.tally.count(Stored::Refused(unusable.reason));
                self.refused.extend(unusable.refused());
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.tally.received() + self.violations == 0 && self.events.is_empty()
    }

    pub(super) fn is_full(&self) -> bool {
        let rejected = usize::try_from(self.tally.received() + self.violations).unwrap_or(BATCH);
        self.events.len() + rejected >= BATCH || self.bytes >= MAX_BYTES
    }

    /// Enqueues the events that are not known; the job counts them on the lane. The others are
    /// counted here. Our own uploads come back too; they are known.
    pub(super) async fn flush(
        &mut self,
        db: &PgPool,
        upstream: Uuid,
        lane: Uuid,
    ) -> Result<(), StepError> {
        let full = std::mem::replace(self, Self::new(self.filter, self.limits, self.gate.clone()));
        if full.is_empty() {
            return Ok(());
        }
        let Self { events, refused, mut tally, violations, .. } = full;
        let events = unknown(db, upstream, events, &mut tally, self.gate.as_deref()).await?;
        if tally.received() > 0 {
            measure(&tally);
            let counted = event::Batch {
                live_lane: Some(lane),
                refused: &refused,
                before: tally,
                ..event::Batch::new(upstream, &[])
            };
            event::store(db, counted).await?;
        }
        enqueue(db, upstream, lane, events, violations).await?;
        Ok(())
    }
}

/// Returns the texts of the events that are not known, and counts the others.
async fn unknown(
    db: &PgPool,
    upstream: Uuid,
    mut events: Vec<(EventId, Received)>,
    tally: &mut Tally,
    gate: Option<&dyn Gate>,
) -> Result<Vec<String>, sqlx::Error> {
    let ids: Vec<EventId> = events.iter().map(|(id, _)| *id).collect();
    let known = match gate {
        Some(gate) => gate.known(db, upstream, &ids).await?,
        None => event::known(db, upstream, &ids).await?.ids,
    };
    events.retain(|(id, _)| {
        let is_known = known.contains(id);
        if is_known {
            tally.count(Stored::Duplicate);
        }
        !is_known
    });
    Ok(events.iter().filter_map(|(_, event)| event.json().map(str::to_owned)).collect())
}

async fn enqueue(
    db: &PgPool,
    upstream: Uuid,
    lane: Uuid,
    events: Vec<String>,
    violations: i64,
) -> Result<(), sqlx::Error> {
    let mut tx = tender_jobs::database::begin(db).await?;
    if !events.is_empty() {
        let work = Work::ProcessEvents { upstream, lane: Some(lane), events };
        queue::enqueue(&mut *tx, &[work.job()]).await?;
    }
    if violations > 0 {
        lane::count_violations(&mut *tx, lane, violations).await?;
    }
    tx.commit().await
}
