//! Admission: judges events, whatever their source, in the transaction that stores them.

use std::collections::HashSet;

use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::family::Source;
use crate::{
    mirror::event::{Event, EventId, Gate, Gated},
    queue::Settled,
};

/// The gate for events of a followed relay. Every enabled service judges them.
#[derive(Debug, Clone, Copy)]
pub struct Followed {
    /// The followed relay.
    pub relay: Uuid,
    /// The epoch of the lease under which the events are stored.
    pub epoch: i64,
    /// How the events came.
    pub source: Source,
}

impl Gate for Followed {
    fn known<'a>(
        &'a self,
        _db: &'a PgPool,
        _upstream: Uuid,
        _ids: &'a [EventId],
    ) -> Gated<'a, HashSet<EventId>> {
        Box::pin(async { Ok(HashSet::new()) })
    }

    fn judge<'a>(
        &'a self,
        _tx: &'a mut PgConnection,
        _upstream: Uuid,
        events: &'a [&'a Event],
    ) -> Gated<'a, Settled<HashSet<EventId>>> {
        Box::pin(async { Ok(Settled::Written(events.iter().map(|event| event.id).collect())) })
    }

    fn stored<'a>(
        &'a self,
        _tx: &'a mut PgConnection,
        _upstream: Uuid,
        _events: &'a [&'a Event],
        _new: &'a HashSet<EventId>,
    ) -> Gated<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}

/// The gate for events of a service's own relay, which has accepted them already.
#[derive(Debug, Clone, Copy)]
pub struct OwnFeed;

impl Gate for OwnFeed {
    fn known<'a>(
        &'a self,
        _db: &'a PgPool,
        _upstream: Uuid,
        _ids: &'a [EventId],
    ) -> Gated<'a, HashSet<EventId>> {
        Box::pin(async { Ok(HashSet::new()) })
    }

    fn judge<'a>(
        &'a self,
        _tx: &'a mut PgConnection,
        _upstream: Uuid,
        events: &'a [&'a Event],
    ) -> Gated<'a, Settled<HashSet<EventId>>> {
        Box::pin(async { Ok(Settled::Written(events.iter().map(|event| event.id).collect())) })
    }

    fn stored<'a>(
        &'a self,
        _tx: &'a mut PgConnection,
        _upstream: Uuid,
        _events: &'a [&'a Event],
        _new: &'a HashSet<EventId>,
    ) -> Gated<'a, ()> {
        Box::pin(async { Ok(()) })
    }
}
