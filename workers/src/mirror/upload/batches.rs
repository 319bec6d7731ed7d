//! The events of a run, which are cut into batches while the run lasts: the size of each batch follows from the answers
//! to the one before it.
//!
//! Invariant: events leave in their order, each once. A batch of new events reaches the position of its last event; the
//! last such batch reaches the position of the whole run, which may be higher.

use std::collections::VecDeque;

use tender_jobs::mirror::event::{
    Event,
    outgoing::{Candidates, Waiting},
};

/// The most bytes of a batch beyond its configured number of events: half of what may wait to be written to a
/// connection, so that the whole batch is on its way at once.
const MOST_BYTES: usize = 1024 * 1024;
/// The bytes of an event beside its content and tags.
const FIXED_BYTES: usize = 400;
/// The attempts of an event with which the connection was lost, after which it is sent alone.
const ALONE_AFTER: u32 = 4;

/// An event to be sent.
#[derive(Debug)]
pub(in crate::mirror) struct Item {
    pub(in crate::mirror) event: Event,
    /// Whether an earlier run sent it without an answer: a duplicate is then our own copy.
    pub(in crate::mirror) was_sent: bool,
}

/// Events that are sent together.
#[derive(Debug)]
pub(in crate::mirror) struct Batch {
    pub(in crate::mirror) items: Vec<Item>,
    /// Every event up to this position has a verdict after this batch; `None` for waiting events.
    pub(in crate::mirror) up_to: Option<i64>,
}

/// The room of a batch, in events.
#[derive(Debug, Clone, Copy)]
pub(in crate::mirror) struct Room {
    /// The number of events that a batch may have, whatever their bytes.
    pub(in crate::mirror) configured: usize,
    /// The number of events that it may have if they are small.
    pub(in crate::mirror) grown: usize,
    /// The bytes that these may have.
    pub(in crate::mirror) bytes: usize,
}

impl Item {
    /// Returns about how many bytes it has on the wire.
    pub(in crate::mirror) fn bytes(&self) -> usize {
        self.event.bytes() + FIXED_BYTES
    }
}

/// The events that a run has not sent yet: those that wait, then new ones, and at last the suspects, with which the
/// connection was lost.
#[derive(Debug)]
pub(in crate::mirror) struct Unsent {
    waiting: VecDeque<Item>,
    fresh: VecDeque<(i64, Item)>,
    up_to: i64,
    suspects: VecDeque<Batch>,
}

impl Unsent {
    /// Takes waiting events, and new ones. `size` is the configured number of events in a batch; `sending` is the
    /// position up to which an earlier run may have sent new events.
    pub(in crate::mirror) fn new(
        waiting: Vec<Waiting>,
        found: Candidates,
        size: usize,
        sending: i64,
    ) -> Self {
        let (suspects, waiting): (Vec<Waiting>, Vec<Waiting>) =
            waiting.into_iter().partition(|one| one.is_suspect);
        let waiting = waiting.into_iter();
        let fresh = found.events.into_iter();
        Self {
            waiting: waiting.map(|one| Item { event: one.event, was_sent: one.is_sent }).collect(),
            fresh: fresh
                .map(|one| {
                    (one.position, Item { event: one.event, was_sent: one.position <= sending })
                })
                .collect(),
            up_to: found.up_to,
            suspects: in_batches(suspects, |one| halved(size, one.attempts)),
        }
    }

    pub(in crate::mirror) fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.fresh.is_empty() && self.suspects.is_empty()
    }

    /// Cuts the next batch. Returns `None` if every event was taken.
    pub(in crate::mirror) fn next(&mut self, room: Room) -> Option<Batch> {
        if !self.waiting.is_empty() {
            let count = room.fits(self.waiting.iter());
            return Some(Batch { items: self.waiting.drain(..count).collect(), up_to: None });
        }
        if !self.fresh.is_empty() {
            let count = room.fits(self.fresh.iter().map(|(_, item)| item));
            let last = self.fresh[count - 1].0;
            let items = self.fresh.drain(..count).map(|(_, item)| item).collect();
            let up_to = if self.fresh.is_empty() { self.up_to } else { last };
            return Some(Batch { items, up_to: Some(up_to) });
        }
        self.suspects.pop_front()
    }
}

impl Room {
    /// Returns how many of these events fit, at least one.
    fn fits<'i>(self, items: impl ExactSizeIterator<Item = &'i Item>) -> usize {
        let (count, most, mut bytes) = (items.len().max(1), self.bytes.min(MOST_BYTES), 0);
        let is_over = |(number, item): (usize, &Item)| {
            bytes += item.bytes();
            number >= self.configured && (number >= self.grown || bytes > most)
        };
        items.enumerate().position(is_over).unwrap_or(count).max(1)
    }
}

/// Splits suspects into batches; neighbours share a batch of the size that each allows.
fn in_batches(suspects: Vec<Waiting>, size: impl Fn(&Waiting) -> usize) -> VecDeque<Batch> {
    let mut batches: VecDeque<Batch> = VecDeque::new();
    let (mut room, mut sizes) = (0, 0);
    for one in suspects {
        let wanted = size(&one);
        if room == 0 || wanted != sizes {
            batches.push_back(Batch { items: Vec::new(), up_to: None });
            (room, sizes) = (wanted, wanted);
        }
        room -= 1;
        if let Some(batch) = batches.back_mut() {
            batch.items.push(Item { event: one.event, was_sent: true });
        }
    }
    batches
}

/// Returns how many events share a batch with one after whose attempts the connection was lost: half
/// as many after each attempt, and none after the fourth, so that the culprit is found.
fn halved(size: usize, attempts: i32) -> usize {
    match u32::try_from(attempts) {
        Ok(attempts) if attempts < ALONE_AFTER => (size >> attempts).max(1),
        _ => 1,
    }
}

#[cfg(test)]
mod tests;
