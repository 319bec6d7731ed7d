//! Items that are followed together: by subscriptions, or by polls if the relay takes no more of them.

use std::time::{Duration, Instant};

use tender_jobs::grasp::{family::Family, followed::Subscriptions};
use uuid::Uuid;

use super::{
    Live,
    standing::{Standing, State},
};
use crate::grasp::session::covers::{CURRENT_FOR, ROTATE};

/// Items that are followed, and the subscriptions that cover them.
#[derive(Debug)]
pub(in super::super) struct Cover {
    pub(in super::super) id: Uuid,
    /// The packed cover that replaces this one as soon as the relay has confirmed it.
    pub(in super::super) successor: Option<Uuid>,
    pub(in super::super) family: Family,
    /// Sorted.
    pub(in super::super) items: Vec<String>,
    pub(in super::super) standing: Vec<Standing>,
    /// Whether the history of all of its items has yet to come.
    pub(in super::super) is_wanting: bool,
}

/// Items beyond the limit of open subscriptions. They are polled in turn.
#[derive(Debug)]
pub(in super::super) struct Polled {
    pub(in super::super) family: Family,
    /// Sorted.
    pub(in super::super) items: Vec<String>,
    pub(in super::super) due: Instant,
    /// Everything up to this second was polled.
    pub(in super::super) since: i64,
    /// When the last poll began, in Unix seconds.
    pub(in super::super) asked: i64,
    /// When the last poll began that succeeded.
    pub(in super::super) good: Instant,
    pub(in super::super) begun: Instant,
    /// Failed polls in a row, and why the last one failed.
    pub(in super::super) failures: u32,
    pub(in super::super) reason: String,
    /// As that of a cover.
    pub(in super::super) is_wanting: bool,
}

/// Items whose live subscriptions were given up until their history is asked for again.
#[derive(Debug)]
pub(in super::super) struct Dropped {
    pub(in super::super) family: Family,
    pub(in super::super) items: Vec<String>,
    /// The subscriptions.
    pub(in super::super) filters: usize,
    /// Why, in the relay's words.
    pub(in super::super) reason: String,
}

impl Polled {
    pub(in super::super) fn new(
        family: Family,
        items: Vec<String>,
        since: i64,
        is_wanting: bool,
    ) -> Self {
        let (now, reason) = (Instant::now(), String::new());
        let (due, good, begun) = (now + ROTATE, now, now);
        Self {
            family,
            items,
            due,
            since,
            asked: since,
            good,
            begun,
            failures: 0,
            reason,
            is_wanting,
        }
    }

    /// Says that nothing is known since so many seconds: the next poll is due at once.
    pub(in super::super) fn behind(mut self, seconds: i64) -> Self {
        let age = Duration::from_secs(seconds.try_into().unwrap_or(0));
        (self.due, self.good) = (self.begun, self.begun.checked_sub(age).unwrap_or(self.begun));
        self
    }

    /// Whether the last poll that succeeded keeps the items up to date.
    fn is_current(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.good) < CURRENT_FOR
    }
}

impl Live {
    /// The number of followed filters, open or not, without those that are being replaced.
    pub(in super::super) fn count(&self) -> usize {
        self.staying().map(|cover| cover.standing.len()).sum()
    }

    fn staying(&self) -> impl Iterator<Item = &Cover> {
        self.covers.iter().filter(|cover| cover.successor.is_none())
    }

    /// The live subscriptions, as they are shown. One that the relay has not confirmed yet is neither open nor
    /// closed.
    pub(in super::super) fn subscriptions(&self) -> Subscriptions {
        let open = self.covers.iter().flat_map(|cover| &cover.standing).filter(|one| one.is_open());
        let closed: Vec<&Standing> = self
            .staying()
            .flat_map(|cover| &cover.standing)
            .filter(|one| one.is_closed())
            .collect();
        let dropped: usize = self.dropped.iter().map(|one| one.filters).sum();
        let words = closed.iter().map(|one| &one.words);
        Subscriptions {
            open: open.count(),
            closed: closed.len() + dropped,
            closed_reason: words.chain(self.dropped.iter().map(|one| &one.reason)).next().cloned(),
            overflow: self.overflow.len(),
        }
    }

    /// Whether everything confirmed is known up to now, or to the last poll.
    pub(in super::super) fn is_current(&self) -> bool {
        let now = Instant::now();
        let covers = self.covers.iter().filter(|cover| !cover.is_wanting);
        covers.flat_map(|cover| &cover.standing).all(Standing::is_current)
            && self.overflow.iter().all(|polled| polled.is_wanting || polled.is_current(now))
    }

    /// Notes that the history of items has come.
    pub(in super::super) fn confirmed(&mut self, family: Family, items: &[String]) {
        let has = |of: Family, all: &[String]| {
            of == family && items.iter().any(|item| all.binary_search(item).is_ok())
        };
        for cover in self.covers.iter_mut().filter(|cover| has(cover.family, &cover.items)) {
            cover.is_wanting = false;
        }
        for polled in self.overflow.iter_mut().filter(|one| has(one.family, &one.items)) {
            polled.is_wanting = false;
        }
    }

    /// Forgets that the subscriptions of items were given up: they are asked for again.
    pub(in super::super) fn recover(&mut self, family: Family, items: &[String]) {
        self.dropped.retain_mut(|one| {
            if one.family == family {
                one.items.retain(|item| !items.contains(item));
            }
            !one.items.is_empty()
        });
    }

    /// Closes the subscriptions that the relay has not confirmed in time, at the second `now`.
    pub(super) fn close_late(&mut self, now: i64) {
        let within = super::CONFIRM_WITHIN.as_secs();
        let why = format!("the relay did not confirm the subscription within {within} s");
        self.all().filter(|one| one.is_late()).for_each(|one| one.close(now, &why));
    }
}

impl Standing {
    /// Whether the relay should have confirmed the subscription by now.
    pub(super) fn is_late(&self) -> bool {
        matches!(&self.state, State::Asked(_, until, _) if *until < Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_poll_keeps_its_items_up_to_date_for_20_minutes() {
        let polled = Polled::new(Family::State, vec!["x".to_owned()], 100, false);
        assert!(ROTATE < CURRENT_FOR, "a poll is due before its items are out of date");
        let after = |minutes| polled.good + Duration::from_mins(minutes);
        assert!(polled.is_current(after(19)));
        assert!(!polled.is_current(after(20)));
    }
}
