//! The length of a lane's windows: it is learned from the upstream, and is stored with the lane.
//!
//! ```text
//!             easy                              easy                  8 easy in a row
//!  as configured ──▶ 4 to 64 × as long ──▶ … ──▶ the longest, or half of a refused length ──▶ the refused length
//!    ▲ ▲                 │ │                          │ │                                        │ │
//!    │ └─ hard: half ────┘ └──────────────────────────┘ └────────────────────────────────────────┘ │
//!    └─── refused: half, or as short as the upstream asks; remembered as refused ◀─────────────────┘
//! ```
//!
//! After a page that was not answered, the length is half, and eight windows must be easy before it grows.
//!
//! A window is easy if it is done in 5 s, and hard if it takes longer than 20 s: a window that is four times as long
//! as an easy one should not be hard. After one that held a hundred events or more, the next is so long that it would take
//! 5 s at the same density, if that is more than four times. At the same density, it also ends well before the time after which a fetch is
//! cut. A window that is neither keeps the length. The time of a small window, with few rounds and few differences, is
//! what the relay needs for any request: shorter windows would only need more of it. It is easy up to 45 s, and never
//! hard. A scan that is truly slow is refused, or ends with the job.
//!
//! Invariants:
//! - The length says how far the next window reaches back from what is proven, and nothing else: no length can skip or
//!   forget a second.
//! - A length is at least [`SHORTEST`], at most the longest, and at most 64 times the one before it, or four times if that
//!   says nothing about the density. It does not grow towards windows of more than [`MANY`] events.
//! - A refused length is not requested again before eight windows of half its length were easy. It is forgotten when
//!   the upstream accepts it, or does not support NIP-77 any more.
//! - A length only shortens after a window that was hard, refused, not answered in time, or held more than half of the
//!   set at which the upstream cuts.

use std::time::Duration;

/// The shortest window that a refusal makes, in seconds.
pub(crate) const SHORTEST: i64 = 60;
/// A window that is done within this time is easy.
const EASY: Duration = Duration::from_secs(5);
/// A window that takes longer is hard.
const HARD: Duration = Duration::from_secs(20);
/// A small window that is done within this time is easy. Less than half of what a job may take: where the time follows
/// the length, a window of half of one that was not done in time is not easy, so that the two do not take turns.
const SMALL_EASY: Duration = Duration::from_secs(45);
/// The most rounds of a small window, and the most events that one side lacked.
const SMALL: (u32, usize) = (2, 1000);
/// How many times as long a window is as the easy one before it, at least and at most.
const GROWTH: (i64, i64) = (4, 64);
/// A window with fewer events says little about the density.
const DENSE: usize = 100;
/// The number of easy windows in a row after which a refused length is tried again.
const EASY_BEFORE_REFUSED: i32 = 8;
/// Windows do not grow beyond this number of events, because the ids of a window are in memory.
const MANY: i64 = 100_000;

/// What a window has cost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    /// Longer windows are welcome.
    Easy,
    /// The length is right.
    Fair,
    /// The next window is shorter.
    Hard,
}

impl Effort {
    /// Returns the effort of a window that took so long, and so many rounds, and whose sides differed in so many events.
    pub(crate) fn of(took: Duration, rounds: u32, differences: usize) -> Self {
        let is_small = rounds <= SMALL.0 && differences <= SMALL.1;
        let easy = if is_small { SMALL_EASY } else { EASY };
        if took <= easy {
            Self::Easy
        } else if is_small || took <= HARD {
            Self::Fair
        } else {
            Self::Hard
        }
    }
}

/// A window that is done, as far as it was proven.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Done {
    pub(crate) effort: Effort,
    /// How long it took.
    pub(crate) took: Duration,
    /// Its length in seconds.
    pub(crate) seconds: i64,
    /// The number of the upstream's events in it; 0 if it is not known.
    pub(crate) events: usize,
    /// The number of events in it, ours and the upstream's, whose ids were in memory.
    pub(crate) held: usize,
    /// The number of events at which the upstream cuts a reconciliation; `None` if the window was polled.
    pub(crate) cap: Option<i64>,
}

/// The length of the next window, and what the lengths after it depend on. In seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Lengths {
    pub(crate) next: i64,
    pub(crate) longest: i64,
    /// The number of easy windows in a row since the length has changed; below 0 if so many must come before it grows.
    pub(crate) easy: i32,
    /// The shortest length that the upstream has refused.
    pub(crate) refused: Option<i64>,
}

impl Lengths {
    /// Returns the lengths after a window that is done.
    pub(crate) fn after(self, done: Done) -> Self {
        let refused = self.refused.filter(|refused| done.seconds < *refused);
        let known = Self { refused, ..self };
        let longer = match done.effort {
            Effort::Easy => Self { easy: self.easy.saturating_add(1), ..known }.longer(done),
            Effort::Fair => Self { easy: self.easy.min(0), ..known },
            Effort::Hard => known.at(self.next / 2),
        };
        match done.most_seconds() {
            Some(most) if done.is_near_cap() => longer.at(longer.next.min(most)),
            Some(most) => longer.at(longer.next.min(most.max(self.next))),
            None => longer,
        }
    }

    /// Returns the lengths after a window of `seconds` that the upstream refused as too large, or did not compare in
    /// time. It holds `items` of our events, and the upstream accepts at most `most` records, if it says so.
    pub(crate) fn after_refusal(self, seconds: i64, most: Option<u64>, items: usize) -> Self {
        let shorter = halved(seconds, most, items);
        Self { refused: Some(2 * shorter), ..self.at(shorter) }
    }

    /// Returns the lengths after a window that was not done in time, and is repeated.
    pub(crate) fn after_cut(self, seconds: i64) -> Self {
        self.at(seconds / 2)
    }

    /// Returns the lengths after a window that the upstream did not answer page by page, although it may answer a
    /// shorter one. It does not grow before eight easy windows; a reconciled one is remembered as refused, because the
    /// next one may be 64 times as long.
    pub(crate) fn after_silence(self, shortest: i64, by_negentropy: bool) -> Self {
        let shorter = self.at((self.next / 2).max(shortest));
        if by_negentropy {
            Self { refused: Some(self.next), ..shorter }
        } else {
            Self { easy: -EASY_BEFORE_REFUSED, ..shorter }
        }
    }

    /// Returns the lengths if windows get longer now.
    fn longer(self, done: Done) -> Self {
        match self.refused {
            _ if self.easy < 0 => self,
            Some(refused) if self.next >= refused / 2 => {
                let is_tried = self.easy >= EASY_BEFORE_REFUSED;
                if is_tried { self.at(refused) } else { self }
            }
            refused => {
                let most = refused.map_or(self.longest, |refused| refused / 2);
                let most = most.min(done.seconds_of(MANY, done.held)).max(self.next);
                let longer = self.next.saturating_mul(GROWTH.0).max(done.seconds_of_easy());
                self.at(longer.min(most))
            }
        }
    }

    fn at(self, seconds: i64) -> Self {
        let next = seconds.clamp(SHORTEST, self.longest.max(SHORTEST));
        Self { next, easy: if next == self.next { self.easy } else { 0 }, ..self }
    }
}

impl Done {
    /// Returns the length of a window that would still be easy at this density; 0 if it says nothing about the density.
    fn seconds_of_easy(self) -> i64 {
        let times = EASY.as_millis() / self.took.as_millis().max(1);
        let times = i64::try_from(times).unwrap_or(GROWTH.1).min(GROWTH.1);
        if self.held < DENSE { 0 } else { self.seconds.saturating_mul(times) }
    }

    /// Returns the length of a window with `events` events, if this one has `held` of the kind.
    fn seconds_of(self, events: i64, held: usize) -> i64 {
        self.seconds.saturating_mul(events) / i64::try_from(held).unwrap_or(i64::MAX).max(1)
    }

    /// Returns the length of a window that holds half of what the upstream compares; `None` if nothing limits it.
    fn most_seconds(self) -> Option<i64> {
        let cap = self.cap.filter(|_| self.events > 0)?;
        Some(self.seconds_of((cap / 2).max(1), self.events))
    }

    /// Whether it holds more than half of what the upstream compares.
    fn is_near_cap(self) -> bool {
        let events = i64::try_from(self.events).unwrap_or(i64::MAX);
        self.cap.is_some_and(|cap| events.saturating_mul(2) > cap)
    }
}

/// Halves a length once, or as often as `most` records of the upstream require, down to the
/// shortest.
fn halved(seconds: i64, most: Option<u64>, items: usize) -> i64 {
    let mut shorter = seconds / 2;
    let mut records = u64::try_from(items).unwrap_or(u64::MAX) / 2;
    while most.is_some_and(|most| most > 0 && records > most) && shorter > SHORTEST {
        (shorter, records) = (shorter / 2, records / 2);
    }
    shorter.max(SHORTEST)
}

#[cfg(test)]
mod tests;
