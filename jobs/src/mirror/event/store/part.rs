//! Parts: the events of a batch that are stored in one transaction. A part that the database
//! refuses is stored in smaller parts, until the event that it refuses is alone.

use sqlx::error::DatabaseError;

use crate::mirror::event::{
    Event, Reason, Tally,
    store::{Batch, Refused, Stored},
};

/// The events of one transaction, and what is written with them.
#[derive(Clone, Default)]
pub(super) struct Part<'a> {
    pub(super) events: Vec<&'a Event>,
    /// Refused events to be remembered.
    pub(super) refused: Vec<Refused>,
    /// Counts of events that are not in `events`.
    pub(super) tally: Tally,
    pub(super) are_deletions: bool,
}

impl<'a> Part<'a> {
    /// Splits a batch: deletions have a transaction of their own. The last part is stored first: the
    /// other events, or the deletions if there is a gate. A gate must not admit an event because of
    /// one that the same batch deletes. There is always a part, even if there is nothing but counts.
    pub(super) fn of(batch: &Batch<'a>) -> Vec<Self> {
        let (deletions, events): (Vec<&Event>, Vec<&Event>) =
            batch.events.iter().partition(|event| event.is_deletion());
        let (refused, tally) = (batch.refused.to_vec(), batch.before.clone());
        if events.is_empty() && refused.is_empty() && !deletions.is_empty() {
            return vec![Self { events: deletions, refused, tally, are_deletions: true }];
        }
        let mut parts = Vec::new();
        if !deletions.is_empty() {
            parts.push(Self { events: deletions, are_deletions: true, ..Self::default() });
        }
        parts.push(Self { events, refused, tally, are_deletions: false });
        if batch.gate.is_some() {
            parts.reverse();
        }
        parts
    }

    /// Returns the only event of a part that the database refused; `None` if another one may be the
    /// cause.
    pub(super) fn culprit(&self) -> Option<&'a Event> {
        match self.events[..] {
            [event] if self.refused.is_empty() => Some(event),
            _ => None,
        }
    }

    /// Returns smaller parts with the same events and counts. A single event is refused. A single
    /// refused event is not remembered. `None` if there is nothing but counts.
    pub(super) fn smaller(mut self) -> Option<Vec<Self>> {
        let are_deletions = self.are_deletions;
        let rest = match (self.events.len(), self.refused.len()) {
            (0, 0) => return None,
            (0, 1) => return Some(vec![Self { tally: self.tally, ..Self::default() }]),
            (1, 0) => return Some(vec![refuse(self.events[0], self.tally)]),
            (0, half) => Self { refused: self.refused.split_off(half / 2), ..Self::default() },
            (half, 0) => {
                let events = self.events.split_off(half / 2);
                Self { events, are_deletions, ..Self::default() }
            }
            _ => Self { refused: std::mem::take(&mut self.refused), ..Self::default() },
        };
        Some(vec![rest, self])
    }
}

/// The outcome of an event that the database refused.
pub(super) const REFUSED: Stored = Stored::Refused(Reason::RefusedByStore);

/// Returns a part that counts and remembers an event that the database refused.
fn refuse(event: &Event, mut tally: Tally) -> Part<'static> {
    tally.count(REFUSED);
    let refused = vec![Refused::of(event, Reason::RefusedByStore)];
    Part { refused, tally, ..Part::default() }
}

/// Returns whether the database refuses a value, by its SQLSTATE: the classes 22, 23 and 54 are values
/// that a type, a constraint or a limit of PostgreSQL refuses.
pub(super) fn is_of_value(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(DatabaseError::code);
    code.is_some_and(|code| ["22", "23", "54"].iter().any(|class| code.starts_with(class)))
}
