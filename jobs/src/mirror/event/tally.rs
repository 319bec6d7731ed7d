//! Counts of a batch of events.

use std::collections::BTreeMap;

use super::{Reason, Stored};

/// The numbers of received events, by outcome.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tally {
    /// Events that were new.
    pub stored: i64,
    /// Events that were stored before, or are known and not wanted.
    pub duplicate: i64,
    /// Rejected events by reason.
    pub rejected: BTreeMap<Reason, i64>,
}

impl Tally {
    /// Returns the number of events received, with any outcome.
    pub fn received(&self) -> i64 {
        self.stored + self.duplicate + self.rejected()
    }

    /// Returns the number of rejected events, for any reason.
    pub fn rejected(&self) -> i64 {
        self.rejected.values().sum()
    }

    /// Counts the outcome of one event.
    pub fn count(&mut self, outcome: Stored) {
        match outcome {
            Stored::New => self.stored += 1,
            Stored::Duplicate => self.duplicate += 1,
            Stored::Refused(reason) => *self.rejected.entry(reason).or_default() += 1,
        }
    }

    /// Adds the counts of another tally.
    pub fn add(&mut self, other: &Self) {
        self.stored += other.stored;
        self.duplicate += other.duplicate;
        for (reason, events) in &other.rejected {
            *self.rejected.entry(*reason).or_default() += events;
        }
    }
}
