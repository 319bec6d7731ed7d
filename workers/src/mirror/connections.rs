//! The connections of this process: one per upstream, opened on demand. At most
//! `max_concurrent_connections` are open at the same time.

use std::{collections::HashMap, sync::Arc, time::Duration};

use nostr::key::Keys;
use sqlx::PgPool;
use tender_jobs::mirror::{
    lane::gap,
    upstream::{self, ConnectionState, Upstream},
};
use tokio::sync::{Mutex, Semaphore};
use uuid::Uuid;

use super::{Context, connection::Connection, error::StepError};
use crate::runtime::pause_or_stop;

/// The longest wait for another connection to end, if all are in use.
const ROOM_WITHIN: Duration = Duration::from_secs(30);
/// How often the states of connections are stored.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Late events that no job has taken for this long become a gap.
const LEFT_FOR: Duration = Duration::from_secs(30);

/// The connection to one upstream. The lock of `open` is held while the connection is opened;
/// `seen` can be read at any time.
#[derive(Debug, Default)]
struct Slot {
    open: Mutex<Option<Connection>>,
    seen: std::sync::Mutex<Seen>,
}

/// The state that is shown to people.
#[derive(Debug, Default, Clone)]
struct Seen {
    /// The last connection that was opened.
    connection: Option<Connection>,
    is_connecting: bool,
    /// Failed attempts in a row.
    attempts: i32,
    /// The error of the last attempt, if it failed.
    error: Option<String>,
    /// Bytes received and sent by earlier connections.
    bytes: (i64, i64),
}

/// All connections of this process.
#[derive(Debug)]
pub struct Connections {
    key: Option<Keys>,
    room: Arc<Semaphore>,
    slots: std::sync::Mutex<HashMap<Uuid, Arc<Slot>>>,
}

impl Connections {
    /// No connections yet, and at most `most` open ones later; `key` answers NIP-42 challenges.
    pub fn new(most: u64, key: Option<Keys>) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { key, room: Arc::new(Semaphore::new(most)), slots: std::sync::Mutex::default() }
    }

    fn slot(&self, upstream: Uuid) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slots.entry(upstream).or_default().clone()
    }

    /// Returns the open connection to an upstream, or opens one. Concurrent callers wait for the
    /// same attempt.
    pub(crate) async fn get(&self, upstream: &Upstream) -> Result<Connection, StepError> {
        let slot = self.slot(upstream.id);
        let mut open = slot.open.lock().await;
        if let Some(connection) = open.as_ref().filter(|connection| connection.is_to(&upstream.url))
        {
            return Ok(connection.clone());
        }
        let permit = tokio::time::timeout(ROOM_WITHIN, self.room.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            return Err(StepError::Connection(
                "no free connection within 30 s; raise max_concurrent_connections".to_owned(),
            ));
        };
        slot.note(|seen| seen.is_connecting = true);
        let connected = Connection::open(&upstream.url, self.key.clone(), permit).await;
        slot.note(|seen| {
            seen.is_connecting = false;
            match &connected {
                Ok(connection) => seen.open(connection.clone()),
                Err(error) => seen.fail(error),
            }
        });
        let connection = connected?;
        *open = Some(connection.clone());
        Ok(connection)
    }

    /// Returns the number of open connections.
    pub fn open(&self) -> usize {
        let is_open = |slot: &Arc<Slot>| slot.state() == ConnectionState::Open;
        self.all().iter().filter(|(_, slot)| is_open(slot)).count()
    }

    fn all(&self) -> Vec<(Uuid, Arc<Slot>)> {
        let slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slots.iter().map(|(id, slot)| (*id, slot.clone())).collect()
    }
}

/// Stores the states of the connections, for other processes to show, until this process stops.
/// Then closes the connections and removes their states.
pub(super) async fn tell(context: Context) {
    let Context { db, connections, process, stopping, .. } = context;
    while !pause_or_stop(TOLD_EVERY, &stopping).await {
        for (upstream, slot) in connections.all() {
            let row = slot.row(upstream, &process);
            if let Err(error) = upstream::note_connection(&db, &row).await {
                tracing::debug!(%upstream, %error, "could not store a connection's state; trying again in 5 s");
            }
            if let Err(error) = tell_late(&db, upstream, &slot).await {
                tracing::warn!(%upstream, %error, "could not store a gap; the late events are counted as violations");
            }
        }
    }
    for (_, slot) in connections.all() {
        if let Some(connection) = slot.open.lock().await.as_ref() {
            connection.close().await;
        }
    }
    if let Err(error) = upstream::forget_connections(&db, &process).await {
        tracing::debug!(%error, "could not remove the states of this process's connections");
    }
}

/// Stores a gap for the events that came after the end of their page, if no job has taken them.
async fn tell_late(db: &PgPool, upstream: Uuid, slot: &Slot) -> Result<(), sqlx::Error> {
    let Some(connection) = slot.note(|seen| seen.connection.clone()) else { return Ok(()) };
    let late = connection.late_left(LEFT_FOR);
    let (Some(since), Some(until)) = (late.iter().min(), late.iter().max()) else { return Ok(()) };
    gap::add_late(db, upstream, *since, *until).await
}

impl Slot {
    fn note<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.seen.lock().unwrap_or_else(std::sync::PoisonError::into_inner))
    }

    fn state(&self) -> ConnectionState {
        self.note(|seen| match &seen.connection {
            _ if seen.is_connecting => ConnectionState::Connecting,
            Some(connection) if connection.lost().is_none() => ConnectionState::Open,
            _ if seen.error.is_some() => ConnectionState::Waiting,
            _ => ConnectionState::Closed,
        })
    }

    fn row(&self, upstream_id: Uuid, process: &str) -> upstream::Connection {
        let state = self.state();
        self.note(|seen| {
            let of_open = seen.connection.as_ref().map_or((0, 0), Connection::bytes);
            let is_open = state == ConnectionState::Open;
            let subscriptions =
                seen.connection.as_ref().filter(|_| is_open).map_or(0, Connection::subscriptions);
            let lost = seen.connection.as_ref().and_then(Connection::lost);
            upstream::Connection {
                upstream_id,
                process: process.to_owned(),
                state: state.as_str().to_owned(),
                subscriptions: i32::try_from(subscriptions).unwrap_or(i32::MAX),
                attempts: seen.attempts,
                bytes_in: seen.bytes.0 + of_open.0,
                bytes_out: seen.bytes.1 + of_open.1,
                error: seen.error.clone().or(lost),
                updated_at: chrono::DateTime::UNIX_EPOCH, // the database sets this
            }
        })
    }
}

impl Seen {
    fn open(&mut self, connection: Connection) {
        if let Some(gone) = self.connection.replace(connection) {
            let (bytes_in, bytes_out) = gone.bytes();
            self.bytes = (self.bytes.0 + bytes_in, self.bytes.1 + bytes_out);
        }
        (self.attempts, self.error) = (0, None);
    }

    fn fail(&mut self, error: &StepError) {
        self.attempts = self.attempts.saturating_add(1);
        self.error = Some(error.to_string());
    }
}
