//! The connections of this process: at most one per upstream, opened on demand and shared by jobs
//! and the live subscription.
//!
//! - `room`: how many are open at the same time, and which one gives way.
//! - `waiting`: lanes whose jobs found all of them in use.
//! - `seen`: the states that are shown to people. `tell`: stores them.

mod room;
mod seen;
mod tell;
mod waiting;

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{Arc, Mutex, PoisonError},
};

use rustls::ClientConfig;
use tender_jobs::mirror::upstream::{ConnectionState, Upstream, settings};
use tokio::{
    sync::{Notify, OwnedSemaphorePermit},
    time::Instant,
};
use uuid::Uuid;

use super::{
    Settings,
    connection::{Connection, Opening, Refusals},
    error::StepError,
    socket::{self, Patience, Target},
    upload::Pace,
};
use room::{Room, Rooms};
use seen::Seen;
pub(super) use tell::tell;
use waiting::Waiting;

/// The largest part of a message beside its event.
const ENVELOPE: usize = 8 * 1024;
/// The longest negentropy frame, in hex digits. Relays send up to 500,000 bytes.
const MAX_FRAME: usize = 1_000_000;

/// The connection to one upstream. The lock of `open` is held while the connection is opened;
/// `seen` can be read at any time.
#[derive(Debug, Default)]
struct Slot {
    open: tokio::sync::Mutex<Open>,
    seen: Mutex<Seen>,
    pace: Arc<Mutex<Pace>>,
    refusals: Refusals,
}

/// The open connection of a slot, and what its next attempt has to know.
#[derive(Debug, Default)]
struct Open {
    connection: Option<Connection>,
    room: Room,
    /// Counts the steps that use the connection.
    users: Arc<()>,
    /// A message that only a connection without compression survives ended an earlier connection.
    is_plain: bool,
    /// The upstream wants no connection before this instant.
    not_before: Option<Instant>,
}

/// All connections of this process.
#[derive(Debug)]
pub struct Connections {
    settings: Settings,
    /// The deployment's settings as they were last read.
    defaults: Mutex<settings::Settings>,
    tls: Arc<ClientConfig>,
    rooms: Rooms,
    slots: Mutex<HashMap<Uuid, Arc<Slot>>>,
    /// Told whenever a connection may have become unused.
    freed: Arc<Notify>,
    waiting: Waiting,
}

/// A connection in use. While it is held, the connection does not give way to another one.
#[derive(Debug)]
pub(crate) struct InUse {
    connection: Connection,
    user: Option<Arc<()>>,
    freed: Arc<Notify>,
}

impl Deref for InUse {
    type Target = Connection;

    fn deref(&self) -> &Connection {
        &self.connection
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.user = None;
        self.freed.notify_one();
    }
}

impl Connections {
    /// No connections yet.
    pub fn new(settings: &Settings) -> Self {
        let defaults = &settings.defaults;
        Self {
            settings: settings.clone(),
            defaults: Mutex::new(defaults.clone()),
            tls: socket::tls(&settings.authorities),
            rooms: Rooms::new(defaults.max_concurrent_connections, defaults.max_live_connections),
            slots: Mutex::default(),
            freed: Arc::default(),
            waiting: Waiting::default(),
        }
    }

    fn slot(&self, upstream: Uuid) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(upstream).or_default().clone()
    }

    /// Returns the pace of uploads to an upstream.
    pub(super) fn pace(&self, upstream: Uuid) -> Arc<Mutex<Pace>> {
        self.slot(upstream).pace.clone()
    }

    /// Returns the open connection to an upstream, or opens one for a job. Concurrent callers wait
    /// for the same attempt.
    ///
    /// # Errors
    /// [`StepError::NoRoom`] if all connections of jobs are in use; else see
    /// [`socket::connect`].
    pub(crate) async fn get(&self, upstream: &Upstream) -> Result<InUse, StepError> {
        self.get_for(upstream, Room::Jobs).await
    }

    /// As [`get`](Self::get), for a live subscription. Jobs share its connection.
    pub(crate) async fn get_live(&self, upstream: &Upstream) -> Result<InUse, StepError> {
        self.get_for(upstream, Room::Live).await
    }

    /// As [`get`](Self::get), for a relay that another wing follows. Jobs and live subscriptions share its
    /// connection.
    pub(crate) async fn get_followed(&self, upstream: &Upstream) -> Result<InUse, StepError> {
        self.get_for(upstream, Room::Followed).await
    }

    async fn get_for(&self, upstream: &Upstream, room: Room) -> Result<InUse, StepError> {
        let slot = self.slot(upstream.id);
        let mut open = slot.open.lock().await;
        let max_event = self.max_event(upstream);
        let target = self.target(upstream, max_event, !open.is_plain);
        if let Some(connection) = open.usable(&target, max_event) {
            self.promote(&mut open, room, &connection);
            return Ok(self.in_use(&open, connection));
        }
        open.may_connect(&upstream.url)?;
        let permit = self.room(room).await?;
        slot.note(|seen| seen.is_connecting = true);
        let (key, refusals) = (self.settings.key.clone(), slot.refusals.clone());
        let opening = Opening { target, max_event, key, room: permit, refusals };
        let connected = Connection::open(opening).await;
        slot.note(|seen| seen.end(&connected));
        let connection = connected.inspect_err(|error| open.note(error))?;
        (open.connection, open.room) = (Some(connection.clone()), room);
        Ok(self.in_use(&open, connection))
    }

    fn max_event(&self, upstream: &Upstream) -> usize {
        let defaults = self.defaults.lock().unwrap_or_else(PoisonError::into_inner);
        upstream.settings(&defaults).limits().bytes
    }

    /// Takes the deployment's settings as they were just read.
    pub(super) fn learn(&self, defaults: settings::Settings) {
        *self.defaults.lock().unwrap_or_else(PoisonError::into_inner) = defaults;
    }

    fn target(&self, upstream: &Upstream, max_event: usize, compress: bool) -> Target {
        Target {
            url: upstream.url.clone(),
            allow_private: upstream.allow_private || self.settings.allow_private,
            max_message: max_event.max(MAX_FRAME) + ENVELOPE,
            compress,
            tls: self.tls.clone(),
            patience: Patience::default(),
        }
    }

    fn in_use(&self, open: &Open, connection: Connection) -> InUse {
        InUse { connection, user: Some(open.users.clone()), freed: self.freed.clone() }
    }

    /// Counts the connection of a job among those of live subscriptions, if one uses it now.
    fn promote(&self, open: &mut Open, room: Room, connection: &Connection) {
        if room != Room::Jobs
            && open.room == Room::Jobs
            && let Some(permit) = self.rooms.try_acquire(room)
        {
            connection.move_to(permit);
            open.room = room;
            self.freed.notify_one();
        }
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        let is_open = |slot: &Arc<Slot>| slot.state() == ConnectionState::Open;
        self.all().iter().filter(|(_, slot)| is_open(slot)).count()
    }

    fn all(&self) -> Vec<(Uuid, Arc<Slot>)> {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.iter().map(|(id, slot)| (*id, slot.clone())).collect()
    }
}

impl Open {
    /// Returns the connection if it is open and leads to the target. Another one is closed.
    fn usable(&mut self, target: &Target, max_event: usize) -> Option<Connection> {
        let connection = self.connection.clone()?;
        if connection.is_to(target, max_event) {
            return Some(connection);
        }
        self.is_plain |= connection.was_lost_by_compression();
        connection.close("closed by us: the settings of the upstream changed");
        self.connection = None;
        None
    }

    /// Fails if the upstream wants no connection yet.
    fn may_connect(&self, url: &str) -> Result<(), StepError> {
        let now = Instant::now();
        match self.not_before.filter(|until| *until > now) {
            Some(until) => Err(StepError::RetryAfter {
                reason: format!(
                    "{url} limits our connections; the next attempt is in {} s, as it asked",
                    (until - now).as_secs()
                ),
                after: until - now,
            }),
            None => Ok(()),
        }
    }

    fn note(&mut self, error: &StepError) {
        self.not_before = error.retry_after().map(|after| Instant::now() + after);
    }
}

/// The permit of an open connection.
type Permit = OwnedSemaphorePermit;
