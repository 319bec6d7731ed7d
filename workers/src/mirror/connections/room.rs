//! How many connections are open at the same time. Jobs and live subscriptions have limits of
//! their own, so that neither takes the connections of the other. A connection that nobody uses
//! gives way to one that is needed, least recently used first.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;

use super::{Connection, Connections, Permit, Slot, StepError};

/// The longest wait for a connection in use to become unused.
const ROOM_WITHIN: Duration = Duration::from_secs(3);

/// The most connections of followed relays.
const MAX_FOLLOWED: u64 = 10_000;

/// What a connection is counted as.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Room {
    #[default]
    Jobs,
    Live,
    /// Of another wing, which bounds the number by itself.
    Followed,
}

/// The permits of open connections.
#[derive(Debug)]
pub(super) struct Rooms {
    jobs: Arc<Semaphore>,
    live: Arc<Semaphore>,
    followed: Arc<Semaphore>,
}

impl Rooms {
    pub(super) fn new(jobs: u64, live: u64) -> Self {
        let permits = |most| {
            let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
            Arc::new(Semaphore::new(most))
        };
        Self { jobs: permits(jobs), live: permits(live), followed: permits(MAX_FOLLOWED) }
    }

    pub(super) fn try_acquire(&self, room: Room) -> Option<Permit> {
        self.of(room).clone().try_acquire_owned().ok()
    }

    pub(super) fn has_free(&self, room: Room) -> bool {
        self.of(room).available_permits() > 0
    }

    fn of(&self, room: Room) -> &Arc<Semaphore> {
        match room {
            Room::Jobs => &self.jobs,
            Room::Live => &self.live,
            Room::Followed => &self.followed,
        }
    }
}

impl Connections {
    /// Returns a permit for another connection. Closes an unused one if there is no other way.
    pub(super) async fn room(&self, room: Room) -> Result<Permit, StepError> {
        let freed = async {
            loop {
                if let Some(permit) = self.rooms.try_acquire(room) {
                    return Some(permit);
                }
                if !self.give_way(room) {
                    tokio::select! {
                        permit = self.rooms.of(room).clone().acquire_owned() => return permit.ok(),
                        () = self.freed.notified() => {}
                    }
                }
            }
        };
        let freed = tokio::time::timeout(ROOM_WITHIN, freed).await;
        freed.ok().flatten().ok_or(StepError::NoRoom)
    }

    /// Closes the unused connection that was used least recently. Returns false if all are in use.
    fn give_way(&self, room: Room) -> bool {
        let slots = self.all();
        let unused = slots.iter().filter_map(|(_, slot)| Some((slot.unused_since(room)?, slot)));
        let Some((_, slot)) = unused.min_by_key(|(since, _)| *since) else { return false };
        slot.close_unused(room)
    }
}

impl Slot {
    /// Since when the connection of the slot is unused; `None` if it is in use or counted
    /// elsewhere.
    pub(super) fn unused_since(&self, room: Room) -> Option<std::time::Instant> {
        let open = self.open.try_lock().ok()?;
        let is_unused = Arc::strong_count(&open.users) == 1 && open.room == room;
        let connection = open.connection.as_ref().filter(|_| is_unused)?;
        connection.lost().is_none().then(|| connection.unused_since())?
    }

    /// Closes the connection, unless it is in use again.
    fn close_unused(&self, room: Room) -> bool {
        let Ok(mut open) = self.open.try_lock() else { return false };
        let is_unused = Arc::strong_count(&open.users) == 1 && open.room == room;
        let unused = |one: &mut Connection| is_unused && one.unused_since().is_some();
        let Some(connection) = open.connection.take_if(unused) else { return false };
        connection.close("closed by us: another upstream needed a connection");
        true
    }
}
