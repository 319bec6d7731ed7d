//! Lanes whose jobs found all connections in use and were requeued. When a job ends, its connection
//! can give way, and the lane that has waited longest becomes due. Without that, its job would start only after
//! its delay and the next poll of the queue.

use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
};

use tender_jobs::mirror::lane::LaneKind;
use uuid::Uuid;

use super::{Connections, Room, Slot};

/// The most lanes that are remembered. The jobs of further ones start after their delay.
const MOST: usize = 1000;

/// The lanes that wait for a connection of this process, in the order of their requeues.
#[derive(Debug, Default)]
pub(super) struct Waiting(Mutex<VecDeque<(Uuid, LaneKind)>>);

impl Waiting {
    fn lanes(&self) -> MutexGuard<'_, VecDeque<(Uuid, LaneKind)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connections {
    /// Remembers that the job of a lane was requeued, because all connections are in use.
    pub(in crate::mirror) fn wait_for_room(&self, lane: Uuid, kind: LaneKind) {
        let mut lanes = self.waiting.lanes();
        if lanes.len() < MOST {
            lanes.push_back((lane, kind));
        }
    }

    /// Forgets a lane whose job has started.
    pub(in crate::mirror) fn stop_waiting(&self, lane: Uuid) {
        self.waiting.lanes().retain(|(waiting, _)| *waiting != lane);
    }

    /// Takes the lane that has waited longest, if its job can open a connection now.
    pub(in crate::mirror) fn next_waiting(&self) -> Option<(Uuid, LaneKind)> {
        let is_empty = self.waiting.lanes().is_empty();
        if is_empty || !self.has_room() {
            return None;
        }
        self.waiting.lanes().pop_front()
    }

    /// Whether a job can open a connection: fewer than the limit are open, or one is unused.
    fn has_room(&self) -> bool {
        let is_unused = |slot: &Slot| slot.unused_since(Room::Jobs).is_some();
        self.rooms.has_free(Room::Jobs) || self.all().iter().any(|(_, slot)| is_unused(slot))
    }
}
