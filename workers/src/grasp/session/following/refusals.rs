//! Whether a relay refuses all requests, as one that wants authentication or payment does. Then one request at a
//! time probes it, later and later. Else each refusal would halve a batch, down to single items.
//!
//! Requests that the relay has refused before are held back by every refusal, others only by refusals of items
//! that were not refused before. So an item that the relay always refuses does not delay the others.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use tender_jobs::grasp::{family::Family, followed};

use crate::{
    grasp::session::work::{Done, is_refusal},
    mirror::error::StepError,
};

/// After so many refusals without a success in between, the relay is taken to refuse everything.
const MANY: u32 = 3;
/// The pause before the first probe. It doubles with each refusal.
const PROBE: Duration = Duration::from_secs(65);
/// The longest such pause.
const PROBE_CAP: Duration = Duration::from_hours(1);

/// The refusals since the last success.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    all: Gate,
    /// The first refusals of their items.
    first: Gate,
    /// The items that were refused.
    items: HashSet<(Family, String)>,
}

/// Refusals in a row, and when the next request may begin.
#[derive(Debug, Default)]
struct Gate {
    count: u32,
    probe_at: Option<Instant>,
}

impl Refusals {
    /// As an earlier session left it.
    pub(super) fn new(all: followed::Refusals, first: followed::Refusals) -> Self {
        Self { all: Gate::new(all), first: Gate::new(first), items: HashSet::new() }
    }

    /// What the next session has to know: every refusal, and the first ones of their items.
    pub(super) fn kept(&self) -> (followed::Refusals, followed::Refusals) {
        (self.all.kept(), self.first.kept())
    }

    /// Notes the end of a request. Returns whether that changed anything.
    pub(super) fn note(&mut self, done: &Done) -> bool {
        let task = &done.task;
        self.note_of(&done.result, task.family, &task.items, task.is_refused)
    }

    fn note_of(
        &mut self,
        result: &Result<(), StepError>,
        family: Family,
        items: &[String],
        was_refused: bool,
    ) -> bool {
        match result {
            Ok(()) => std::mem::take(self).all.count > 0,
            Err(error) if is_refusal(error) => {
                self.all.refused();
                if self.are_new(family, items) && !was_refused {
                    self.first.refused();
                }
                true
            }
            Err(_) => false,
        }
    }

    /// Remembers items. Returns whether none of them was refused since the last success.
    fn are_new(&mut self, family: Family, items: &[String]) -> bool {
        let new = items.iter().filter(|item| self.items.insert((family, (*item).clone()))).count();
        new == items.len()
    }

    /// Whether a request may begin while so many are running.
    pub(super) fn allow(&self, running: usize) -> bool {
        self.first.allows(running)
    }

    /// Whether it may be one that the relay has refused before.
    pub(super) fn allow_refused(&self, running: usize) -> bool {
        self.allow(running) && self.all.allows(running)
    }

    /// When such a request may begin; `None` if it may now.
    pub(super) fn refused_from(&self) -> Option<Instant> {
        self.all.probe_at
    }
}

impl Gate {
    fn new(kept: followed::Refusals) -> Self {
        let at = |wait: Duration| Instant::now() + wait.min(PROBE_CAP);
        Self { count: kept.count, probe_at: kept.probe_in.map(at) }
    }

    fn kept(&self) -> followed::Refusals {
        let wait = |at: Instant| at.saturating_duration_since(Instant::now());
        followed::Refusals { count: self.count, probe_in: self.probe_at.map(wait) }
    }

    fn refused(&mut self) {
        self.count = self.count.saturating_add(1);
        let times = self.count.saturating_sub(MANY).min(8);
        let pause = PROBE.saturating_mul(1 << times).min(PROBE_CAP);
        self.probe_at = (self.count >= MANY).then(|| Instant::now() + pause);
    }

    fn allows(&self, running: usize) -> bool {
        self.probe_at.is_none_or(|at| running == 0 && at <= Instant::now())
    }
}

#[cfg(test)]
mod tests;
