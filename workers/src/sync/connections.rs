//! The connections of this process: one per upstream, opened when somebody needs it, so many at most.

use std::{collections::HashMap, sync::Arc, time::Duration};

use nostr::key::Keys;
use sqlx::PgPool;
use tender_jobs::upstream::{self, ConnectionState, Upstream};
use tokio::sync::{Mutex, Semaphore};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{connection::Connection, error::StepError};

/// Longest wait for another connection to end, where all are in use.
const ROOM_WITHIN: Duration = Duration::from_secs(30);
/// How often other processes are told.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// What is known of an upstream's connection.
#[derive(Debug, Default)]
struct Slot {
    open: Mutex<Option<Connection>>,
    seen: std::sync::Mutex<Seen>,
}

#[derive(Debug, Default, Clone)]
struct Seen {
    connection: Option<Connection>,
    is_connecting: bool,
    attempts: i32,
    error: Option<String>,
    /// Bytes of connections that are gone.
    bytes: (i64, i64),
}

/// Every connection of this process.
#[derive(Debug)]
pub struct Connections {
    key: Option<Keys>,
    room: Arc<Semaphore>,
    slots: std::sync::Mutex<HashMap<Uuid, Arc<Slot>>>,
}

impl Connections {
    /// At most `most` open ones; `key` says who we are, where a relay asks.
    pub fn new(most: u64, key: Option<Keys>) -> Self {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Self { key, room: Arc::new(Semaphore::new(most)), slots: std::sync::Mutex::default() }
    }

    fn slot(&self, upstream: Uuid) -> Arc<Slot> {
        let mut slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slots.entry(upstream).or_default().clone()
    }

    /// The connection to an upstream; whoever else asks meanwhile waits for the same attempt.
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
                "all connections are in use (max_concurrent_connections)".to_owned(),
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

    /// Tells other processes what the connections do, until `shutdown`; then closes them.
    pub(crate) async fn tell(&self, db: PgPool, process: String, shutdown: CancellationToken) {
        while tokio::time::timeout(TOLD_EVERY, shutdown.cancelled()).await.is_err() {
            for (upstream, slot) in self.all() {
                let row = slot.row(upstream, &process);
                if let Err(error) = upstream::note_connection(&db, &row).await {
                    tracing::debug!(%error, "could not tell of a connection; the next look does");
                }
            }
        }
        for (_, slot) in self.all() {
            if let Some(connection) = slot.open.lock().await.as_ref() {
                connection.close().await;
            }
        }
        if let Err(error) = upstream::forget_connections(&db, &process).await {
            tracing::debug!(%error, "could not take the connections off the list");
        }
    }

    /// Open ones.
    pub fn open(&self) -> usize {
        let is_open = |slot: &Arc<Slot>| slot.state() == ConnectionState::Open;
        self.all().iter().filter(|(_, slot)| is_open(slot)).count()
    }

    fn all(&self) -> Vec<(Uuid, Arc<Slot>)> {
        let slots = self.slots.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        slots.iter().map(|(id, slot)| (*id, slot.clone())).collect()
    }
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
                updated_at: chrono::DateTime::UNIX_EPOCH, // the database's to write
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
