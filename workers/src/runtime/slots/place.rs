//! Places: the slot of a running job, which it may leave before it writes its outcome.
//!
//! ```text
//!            take             leave, if it only writes             end
//!   free ───────────▶ in a slot ───────────────────▶ writing ───────────▶ gone
//!    ▲                    │  (as many as slots, at most 16)
//!    └────────────────────┴─ the slot is free again, or taken away
//! ```
//!
//! Jobs that write need no more of zooid. If they kept their slots, no call would be under way for as long as PostgreSQL
//! needs to store outcomes, and they are stored together.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{Slots, less_one};

/// The slot that a job occupies.
#[derive(Debug)]
pub(in crate::runtime) struct Slot {
    /// `None` once the job has left the slot.
    pub(super) permit: Option<OwnedSemaphorePermit>,
    /// The job's place among those that have left their slots.
    pub(super) writing: Option<OwnedSemaphorePermit>,
    pub(super) slots: Slots,
    pub(super) since: Instant,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.give_back();
    }
}

impl Slot {
    /// The job only writes from here on: another job may have its slot, unless many write already. A suspect's
    /// jobs keep theirs, so that it strands one job if it dies.
    fn leave(&mut self) {
        if self.permit.is_none() || !self.slots.is_trusted() {
            return;
        }
        self.writing = self.slots.place_to_write();
        if self.writing.is_some() {
            self.give_back();
        }
    }

    fn give_back(&mut self) {
        let Some(permit) = self.permit.take() else { return };
        self.slots.took(self.since.elapsed());
        if less_one(&self.slots.excess) {
            permit.forget();
        }
    }
}

/// Where a job runs: the slot that it occupies until it leaves it or ends.
#[derive(Debug, Clone)]
pub struct Place(Option<Arc<Mutex<Slot>>>);

impl Place {
    pub(in crate::runtime) fn new(slot: Slot) -> Self {
        Self(Some(Arc::new(Mutex::new(slot))))
    }

    /// The place of a job that runs outside a worker.
    pub fn none() -> Self {
        Self(None)
    }

    /// Says that the job only writes its outcome from here on: another job may start in its slot.
    pub fn leave(&self) {
        if let Some(slot) = &self.0 {
            slot.lock().unwrap_or_else(PoisonError::into_inner).leave();
        }
    }

    /// The job has ended without the process.
    pub(in crate::runtime) fn ended(self) {
        if let Some(slot) = &self.0 {
            slot.lock().unwrap_or_else(PoisonError::into_inner).slots.earn();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::WRITING, *};

    #[tokio::test]
    async fn a_slot_is_taken_until_its_job_has_ended() {
        let slots = Slots::new(2, false);
        let first = slots.take().await;
        assert_eq!(slots.free(true).await, 1);
        drop(first);
        assert_eq!(slots.free(false).await, 2);
    }

    #[tokio::test]
    async fn a_job_that_writes_leaves_its_slot_once() {
        let slots = Slots::new(2, false);
        let place = Place::new(slots.take().await);
        place.leave();
        place.leave();
        assert_eq!(slots.free(false).await, 2);
        place.ended();
        assert_eq!(slots.free(false).await, 2);
        assert_eq!(slots.writing.available_permits(), WRITING);
    }

    #[tokio::test]
    async fn as_many_jobs_write_outside_of_slots_as_there_are_slots_and_at_most_16() {
        for (size, most) in [(2, 2), (WRITING + 4, WRITING)] {
            let slots = Slots::new(size, false);
            let mut places = Vec::new();
            for _ in 0..size {
                places.push(Place::new(slots.take().await));
            }
            places.iter().for_each(Place::leave);
            assert_eq!(slots.free(false).await, most, "of {size}");
            for _ in 0..most {
                places.push(Place::new(slots.take().await));
            }
            places.iter().for_each(Place::leave);
            assert_eq!(slots.free.available_permits(), 0, "the others keep their slots");
            assert_eq!(slots.writing.available_permits(), WRITING - most, "no place is given up");
        }
    }

    #[tokio::test]
    async fn a_slot_that_is_too_many_is_gone_when_its_job_leaves() {
        let slots = Slots::new(2, false);
        let places = [Place::new(slots.take().await), Place::new(slots.take().await)];
        slots.resize(1);
        places.iter().for_each(Place::leave);
        assert_eq!(slots.free.available_permits(), 0);
        assert_eq!(slots.writing.available_permits(), WRITING - 1, "the other keeps the last slot");
        drop(places);
        assert_eq!(slots.free(false).await, 1);
    }

    #[tokio::test]
    async fn the_jobs_of_a_suspect_keep_their_slots() {
        let slots = Slots::new(2, true);
        let place = Place::new(slots.take().await);
        place.leave();
        assert_eq!(slots.free.available_permits(), 0);
        place.ended();
        assert_eq!(slots.free(false).await, 1);
    }
}
