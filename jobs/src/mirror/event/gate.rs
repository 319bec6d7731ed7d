//! A gate decides which events of a batch enter the store, in the transaction that stores them. A
//! wing that stores only what it has a reason for brings its own gate; without one, every event
//! that passes the store's rules is stored.

use std::{collections::HashSet, fmt};

use futures_util::future::BoxFuture;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Event, EventId};
use crate::queue::Settled;

/// A future of a gate.
pub type Gated<'a, T> = BoxFuture<'a, Result<T, sqlx::Error>>;

/// Decides which events are stored. All methods get the upstream that sent the events.
pub trait Gate: fmt::Debug + Send + Sync {
    /// Returns which of the ids need no further work from this gate. An id that the store has is not
    /// enough if the gate has not decided on it yet. By default none: a gate whose events come from the
    /// ledger is not asked.
    fn known<'a>(
        &'a self,
        _db: &'a PgPool,
        _upstream: Uuid,
        _ids: &'a [EventId],
    ) -> Gated<'a, HashSet<EventId>> {
        Box::pin(async { Ok(HashSet::new()) })
    }

    /// Judges verified events. Returns the judgement, or [`Settled::LeaseLost`] if nothing may be stored
    /// any more. It runs before the transaction takes the store's locks.
    fn judge<'a, 'e: 'a>(
        &'a self,
        tx: &'a mut PgConnection,
        upstream: Uuid,
        events: &'a [&'e Event],
    ) -> Gated<'a, Settled<Box<dyn Judged + 'e>>>;
}

/// A gate's judgement of some events.
pub trait Judged: Send + Sync {
    /// The ids of the events that may be stored.
    fn admitted(&self) -> &HashSet<EventId>;

    /// Learns which of the admitted events are in the store now: `new` ones, and others that were
    /// there before. It runs after the transaction has taken the store's locks and written the events.
    fn stored<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        events: &'a [&'a Event],
        new: &'a HashSet<EventId>,
    ) -> Gated<'a, ()>;
}
