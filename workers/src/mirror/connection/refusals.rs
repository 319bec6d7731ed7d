//! What an upstream answered with the end of the connection, or not at all. An error that ends a step tells nothing to the
//! next one, which would ask the same again: this is remembered from connection to connection.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long an end of the connection is remembered: longer than any wait before the next attempt.
const AFTER_AN_END: Duration = Duration::from_hours(30);
/// How long another refusal is remembered, which may have had another cause.
const AFTER_OTHERS: Duration = Duration::from_hours(1);

/// Requests without which work goes on in another way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Asked {
    /// Ids by their first digits. NIP-01 no longer has them.
    Prefixes,
    /// A second with more events than a page, in parts.
    Parts,
    /// A comparison (NIP-77).
    Comparison,
}

/// Shared by the connections of an upstream, one after the other.
#[derive(Debug, Clone, Default)]
pub(crate) struct Refusals(Arc<Mutex<Kept>>);

#[derive(Debug, Default)]
struct Kept {
    /// Until when each is not asked again.
    until: [Option<Instant>; 3],
    /// When a connection ended instead of an answer to a comparison, if none came to its end since.
    suspected: Option<Instant>,
}

impl Refusals {
    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn has(&self, asked: Asked) -> bool {
        self.kept().until[asked as usize].is_some_and(|until| until > Instant::now())
    }

    /// Remembers a refusal. `has_ended` if it was the end of the connection.
    pub(crate) fn add(&self, asked: Asked, has_ended: bool) {
        let until = Instant::now() + if has_ended { AFTER_AN_END } else { AFTER_OTHERS };
        self.kept().until[asked as usize] = Some(until);
    }

    /// A connection ended instead of an answer to a comparison. That of a relay that restarts does so too, once.
    pub(crate) fn suspect_comparisons(&self) {
        let before = self.kept().suspected.replace(Instant::now());
        if before.is_some_and(|at| at.elapsed() < AFTER_AN_END) {
            self.add(Asked::Comparison, true);
        }
    }

    /// A comparison came to its end.
    pub(crate) fn trust_comparisons(&self) {
        self.kept().suspected = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_request_is_refused_by_itself() {
        let refusals = Refusals::default();
        refusals.clone().add(Asked::Parts, false);
        assert!(refusals.has(Asked::Parts));
        assert!(!refusals.has(Asked::Prefixes) && !refusals.has(Asked::Comparison));
    }

    #[test]
    fn a_comparison_is_refused_by_two_ends_without_an_answer_between_them() {
        let refusals = Refusals::default();
        refusals.suspect_comparisons();
        refusals.trust_comparisons();
        refusals.suspect_comparisons();
        assert!(!refusals.has(Asked::Comparison));
        refusals.suspect_comparisons();
        assert!(refusals.has(Asked::Comparison));
    }
}
