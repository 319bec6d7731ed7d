//! One standing subscription: whether it is open, and what it may have missed while it was not.

use std::time::{Duration, Instant};

use tender_jobs::mirror::filter::Filter;
use uuid::Uuid;

use crate::{grasp::session::covers::CURRENT_FOR, mirror::connection::Subscription};

/// The pause before a closed subscription is opened again. It doubles with each refusal.
const REOPEN: Duration = Duration::from_secs(65);
/// The longest such pause.
const REOPEN_CAP: Duration = Duration::from_mins(15);
/// After so many refusals in a row, the relay is taken to refuse the filter.
const REFUSED: u32 = 3;

/// A filter that is followed.
#[derive(Debug)]
pub(in super::super) struct Standing {
    pub(super) id: Uuid,
    pub(super) filter: Filter,
    pub(super) state: State,
    /// Refusals since the subscription was last confirmed.
    pub(super) refusals: u32,
    /// Why it was closed last, in the relay's words.
    pub(in super::super) words: String,
    /// What it may have missed, until that is fetched.
    repair: Option<Repair>,
    /// When the last repair that succeeded began.
    repaired: Option<Instant>,
    /// The challenge after whose answer the subscription was opened again at once.
    challenge: Option<String>,
}

#[derive(Debug)]
pub(super) enum State {
    /// The relay was asked at this second, and has to confirm until then.
    Asked(Subscription, Instant, i64),
    /// The relay has sent an event, or all that it has stored (EOSE).
    Open(Subscription, Confirmed),
    /// The relay ended it: opened again then. Events since this second may be missed.
    Closed { again: Instant, since: i64 },
}

/// By what a relay has confirmed a subscription.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Confirmed {
    Event,
    Eose,
}

/// The fetch of what a closed subscription may have missed. At most one runs for each subscription.
#[derive(Debug, Clone, Copy)]
struct Repair {
    /// Events since this second may be missed.
    since: i64,
    due: Instant,
    failures: u32,
    is_running: bool,
    begun: Instant,
    /// The subscription was closed again at this second while the fetch was running.
    again: Option<i64>,
}

impl Standing {
    pub(super) fn new(filter: Filter, state: State) -> Self {
        let (id, words) = (Uuid::new_v4(), String::new());
        Self {
            id,
            filter,
            state,
            refusals: 0,
            words,
            repair: None,
            repaired: None,
            challenge: None,
        }
    }

    /// Whether the relay has confirmed the subscription.
    pub(super) fn is_open(&self) -> bool {
        matches!(self.state, State::Open(..))
    }

    /// Whether everything that is published from now on comes by the subscription.
    pub(in super::super) fn is_sure(&self) -> bool {
        matches!(self.state, State::Open(_, Confirmed::Eose))
    }

    pub(in super::super) fn is_closed(&self) -> bool {
        matches!(self.state, State::Closed { .. })
    }

    /// Whether the relay refuses the filter again and again.
    pub(in super::super) fn is_refused(&self) -> bool {
        self.refusals >= REFUSED && !self.is_open()
    }

    /// Whether nothing was missed, as far as is known. A filter that the relay refuses again and again is
    /// polled with each refusal: it does not hold back the others while these polls succeed.
    pub(super) fn is_current(&self) -> bool {
        let is_polled = || self.repaired.is_some_and(|at| at.elapsed() < CURRENT_FOR);
        self.is_open() && self.repair.is_none() || self.is_refused() && is_polled()
    }

    /// Whether neither the subscription nor the fetch of what it missed succeeds.
    pub(in super::super) fn is_hopeless(&self) -> bool {
        self.is_refused() && self.repair.is_some_and(|repair| repair.failures >= REFUSED)
    }

    pub(super) fn subscription(&mut self) -> Option<&mut Subscription> {
        match &mut self.state {
            State::Asked(subscription, ..) | State::Open(subscription, _) => Some(subscription),
            State::Closed { .. } => None,
        }
    }

    pub(super) fn confirm(&mut self, by: Confirmed) {
        self.refusals = 0;
        let closed = State::Closed { again: Instant::now(), since: 0 };
        self.state = match std::mem::replace(&mut self.state, closed) {
            State::Asked(subscription, ..) => State::Open(subscription, by),
            State::Open(subscription, _) if by == Confirmed::Eose => State::Open(subscription, by),
            state => state,
        };
    }

    /// Notes that the relay ended the subscription, with these words. If it had not confirmed it, events may be missed since
    /// it was asked.
    pub(super) fn close(&mut self, now: i64, words: &str) {
        words.clone_into(&mut self.words);
        let since = match self.state {
            State::Asked(_, _, asked) => asked,
            State::Open(..) => now,
            State::Closed { since, .. } => since,
        };
        let pause = REOPEN.saturating_mul(1 << self.refusals.min(8)).min(REOPEN_CAP);
        self.refusals += 1;
        self.state = State::Closed { again: Instant::now() + pause, since };
    }

    /// Lets a subscription be opened at once that was closed for want of authentication. Each challenge
    /// does so once.
    pub(in super::super) fn authenticated(&mut self, challenge: &str) {
        if self.challenge.as_deref() == Some(challenge) || self.refusals > REFUSED {
            return;
        }
        if let State::Closed { again, .. } = &mut self.state {
            *again = Instant::now();
            self.challenge = Some(challenge.to_owned());
        }
    }

    /// The subscription is asked for again: what it may have missed is to be fetched.
    pub(super) fn reopened(&mut self, state: State) {
        if let State::Closed { since, .. } = std::mem::replace(&mut self.state, state) {
            self.miss(since);
        }
    }

    /// Events since this second may be missed.
    pub(in super::super) fn miss(&mut self, since: i64) {
        match &mut self.repair {
            Some(repair) if repair.is_running => {
                repair.again = Some(repair.again.map_or(since, |again| again.min(since)));
            }
            Some(repair) => repair.since = repair.since.min(since),
            None => self.repair = Some(Repair::new(since)),
        }
    }

    /// The second since which events may be missed; `None` if none may be.
    pub(in super::super) fn missed(&self) -> Option<i64> {
        let closed = match self.state {
            State::Closed { since, .. } | State::Asked(_, _, since) => Some(since),
            State::Open(..) => None,
        };
        self.repair.map(|repair| repair.since).into_iter().chain(closed).min()
    }

    /// Whether a repair is due.
    pub(super) fn is_due(&self) -> bool {
        self.repair.is_some_and(|repair| !repair.is_running && repair.due <= Instant::now())
    }

    /// Begins the repair that is due. Returns since when events may be missed.
    pub(super) fn begin_repair(&mut self) -> Option<i64> {
        let repair =
            self.repair.as_mut().filter(|one| !one.is_running && one.due <= Instant::now())?;
        (repair.is_running, repair.begun) = (true, Instant::now());
        Some(repair.since)
    }

    /// Notes that the repair has succeeded.
    pub(in super::super) fn repaired(&mut self) {
        if let Some(repair) = self.repair {
            self.repaired = Some(repair.begun);
            self.repair = repair.again.map(Repair::new);
        }
    }

    /// Notes that the repair has failed. It is due again later, each time twice as late. `counts` is false if
    /// the relay limits our rate.
    pub(in super::super) fn repair_failed(&mut self, counts: bool) {
        let Some(repair) = &mut self.repair else { return };
        repair.is_running = false;
        repair.since = repair.again.take().map_or(repair.since, |again| again.min(repair.since));
        let pause = REOPEN.saturating_mul(1 << repair.failures.min(8)).min(REOPEN_CAP);
        repair.due = Instant::now() + pause;
        repair.failures += u32::from(counts);
    }
}

impl Repair {
    fn new(since: i64) -> Self {
        let now = Instant::now();
        Self { since, due: now, failures: 0, is_running: false, begun: now, again: None }
    }
}

#[cfg(test)]
mod tests;
