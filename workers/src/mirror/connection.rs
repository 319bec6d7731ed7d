//! A connection of this process to an upstream, shared by its lanes. One task reads the socket and
//! routes each message to the subscription or upload that waits for it; one task writes. If either
//! task ends, the connection is lost.
//!
//! - `reading`: the task that reads.
//! - `route`: subscriptions, and the messages for them. `budget`: the bytes that may wait.
//! - `sent`: events that wait for the upstream's answer.
//! - `auth`: the answer to the upstream's challenge (NIP-42).
//! - `late`: events that come after the end of their page.
//! - `refusals`: what an upstream answered with the end of the connection.

mod auth;
mod budget;
mod late;
mod reading;
mod refusals;
mod route;
mod sent;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::Instant,
};

use nostr::key::Keys;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};

use super::{
    error::StepError,
    socket::{self, Outgoing, Target},
};
use auth::Auth;
use budget::Budget;
use route::Route;
use sent::Sent;

pub(crate) use budget::storing;
pub(crate) use late::Window;
pub(crate) use refusals::{Asked, Refusals};
pub(crate) use route::{Heard, Received, Subscription};

/// The messages that may wait to be written; then [`Connection::send`] waits.
const TO_WRITE: usize = 128;
/// The bytes that may wait to be written.
const BYTES_TO_WRITE: usize = 2 * 1024 * 1024;
/// The most characters of a message that are logged.
const LOGGED_CHARS: usize = 512;
/// Why a connection was lost, if no other reason is known.
const BROKEN: &str = "the connection to the upstream was lost";

#[derive(Debug)]
struct Shared {
    target: Target,
    /// The largest event that is received, as JSON, in bytes.
    max_event: usize,
    key: Option<Keys>,
    /// The subscriptions, by id.
    routes: Mutex<HashMap<String, Route>>,
    /// The bytes of messages that wait for their subscriptions.
    budget: Budget,
    /// The events that wait for their `OK`.
    sent: Mutex<Sent>,
    outgoing: mpsc::Sender<Outgoing>,
    to_write: Arc<Semaphore>,
    auth: Auth,
    /// Why the connection was lost; `None` while it is open.
    lost: watch::Sender<Option<String>>,
    /// The last notice that says that the upstream limits our rate.
    limited: watch::Sender<Option<String>>,
    /// Whether a connection without compression would have survived.
    lost_by_compression: AtomicBool,
    /// When a lane last used the connection.
    used: Mutex<Instant>,
    /// The permit of an open connection.
    room: Mutex<Option<OwnedSemaphorePermit>>,
    bytes_in: AtomicI64,
    bytes_out: AtomicI64,
    strays: AtomicI64,
    late: late::Late,
    refusals: Refusals,
    /// Whether the end of this connection was held against comparisons.
    is_suspected: AtomicBool,
}

/// How the reasons of our own ends begin.
const OURS: &str = "closed by us";

/// A connection; its clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Shared>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // a panic leaves each value consistent
}

/// What a connection needs besides its target.
pub(crate) struct Opening {
    pub(super) target: Target,
    /// The largest event that is received, as JSON, in bytes.
    pub(super) max_event: usize,
    /// The key that answers a challenge.
    pub(super) key: Option<Keys>,
    /// The permit that is held until the connection is lost.
    pub(super) room: OwnedSemaphorePermit,
    /// What earlier connections have shown.
    pub(super) refusals: Refusals,
}

impl Shared {
    fn new(opening: Opening, outgoing: mpsc::Sender<Outgoing>) -> Self {
        Self {
            target: opening.target,
            max_event: opening.max_event,
            key: opening.key,
            routes: Mutex::default(),
            budget: Budget::new(),
            sent: Mutex::default(),
            outgoing,
            to_write: Arc::new(Semaphore::new(BYTES_TO_WRITE)),
            auth: Auth::new(),
            lost: watch::Sender::new(None),
            limited: watch::Sender::new(None),
            lost_by_compression: AtomicBool::new(false),
            used: Mutex::new(Instant::now()),
            room: Mutex::new(Some(opening.room)),
            bytes_in: AtomicI64::new(0),
            bytes_out: AtomicI64::new(0),
            strays: AtomicI64::new(0),
            late: late::Late::default(),
            refusals: opening.refusals,
            is_suspected: AtomicBool::new(false),
        }
    }
}

impl Connection {
    /// Connects.
    pub(crate) async fn open(opening: Opening) -> Result<Self, StepError> {
        let (writer, reader) = socket::connect(&opening.target).await?;
        let (outgoing, to_write) = mpsc::channel(TO_WRITE);
        let connection = Self(Arc::new(Shared::new(opening, outgoing)));
        tokio::spawn(connection.clone().write(writer, to_write));
        tokio::spawn(connection.clone().read_all(reader));
        Ok(connection)
    }

    /// Writes until the connection is lost. A lost writer loses the connection, because a
    /// connection that only receives answers to nothing.
    async fn write(self, writer: socket::Writer, outgoing: mpsc::Receiver<Outgoing>) {
        let mut lost = self.0.lost.subscribe();
        let written = tokio::select! {
            biased; // a close that waits is written
            written = socket::write(writer, outgoing, self.0.target.patience.write) => written,
            _ = lost.wait_for(Option::is_some) => Ok(()),
        };
        if let Err(why) = written {
            self.lose(&why);
        }
    }

    /// Why the connection was lost; `None` while it is open.
    pub(crate) fn lost(&self) -> Option<String> {
        self.0.lost.borrow().clone()
    }

    /// Returns what the upstream is not to be asked now.
    pub(crate) fn refusals(&self) -> &Refusals {
        &self.0.refusals
    }

    /// Whether the upstream ended the connection, and not we.
    pub(crate) fn was_ended(&self) -> bool {
        self.lost().is_some_and(|why| !why.starts_with(OURS))
    }

    /// The upstream ended the connection while it owed a frame of a comparison. Several may have waited for one.
    pub(crate) fn suspect_comparisons(&self) {
        if self.was_ended() && !self.0.is_suspected.swap(true, Ordering::Relaxed) {
            self.0.refusals.suspect_comparisons();
        }
    }

    /// Returns the error of a step whose connection was lost.
    pub(crate) fn lost_error(&self) -> StepError {
        StepError::Connection(self.lost().unwrap_or_else(|| BROKEN.to_owned()))
    }

    /// Waits until the connection is lost.
    pub(crate) async fn until_lost(&self) {
        let mut lost = self.0.lost.subscribe();
        let _open_as_long_as_we_are = lost.wait_for(Option::is_some).await;
    }

    /// Returns the notices from now on that say that the upstream limits our rate.
    pub(crate) fn limits(&self) -> watch::Receiver<Option<String>> {
        self.0.limited.subscribe()
    }

    /// Whether the connection is open and leads to this target, with these limits.
    pub(super) fn is_to(&self, target: &Target, max_event: usize) -> bool {
        let own = &self.0.target;
        self.lost().is_none()
            && self.0.max_event == max_event
            && (&own.url, own.allow_private) == (&target.url, target.allow_private)
    }

    /// Whether the connection was lost by a message that only a connection without compression
    /// survives.
    pub(super) fn was_lost_by_compression(&self) -> bool {
        self.0.lost_by_compression.load(Ordering::Relaxed)
    }

    /// Returns the bytes received and sent since the connection was opened.
    pub(crate) fn bytes(&self) -> (i64, i64) {
        (self.0.bytes_in.load(Ordering::Relaxed), self.0.bytes_out.load(Ordering::Relaxed))
    }

    /// Since when no lane uses the connection; `None` while subscriptions or sent events wait.
    pub(super) fn unused_since(&self) -> Option<Instant> {
        let is_used = !locked(&self.0.routes).is_empty() || !locked(&self.0.sent).is_empty();
        (!is_used).then(|| *locked(&self.0.used))
    }

    /// Holds another permit instead of the present one.
    pub(super) fn move_to(&self, room: OwnedSemaphorePermit) {
        let mut held = locked(&self.0.room);
        // A lost connection holds none.
        if held.is_some() {
            *held = Some(room);
        }
    }

    /// Closes the connection, and ends its subscriptions.
    pub(crate) fn close(&self, why: &str) {
        let _full_or_lost = self.0.outgoing.try_send(Outgoing::Close);
        self.lose(why);
    }

    /// Sends a message. Waits while many messages are to be written.
    pub(crate) async fn send(&self, message: &Value) -> Result<(), StepError> {
        let text = message.to_string();
        add(&self.0.bytes_out, text.len());
        self.touch();
        let bytes = u32::try_from(text.len().min(BYTES_TO_WRITE)).unwrap_or(u32::MAX);
        let mut lost = self.0.lost.subscribe();
        let held = tokio::select! {
            held = self.0.to_write.clone().acquire_many_owned(bytes) => held.ok(),
            _ = lost.wait_for(Option::is_some) => None,
        };
        let message = Outgoing::Text(text, held);
        self.0.outgoing.send(message).await.map_err(|_| self.lost_error())
    }

    fn touch(&self) {
        *locked(&self.0.used) = Instant::now();
    }

    /// Marks the connection as lost, and ends everything that waits for it. Only the first reason
    /// counts.
    fn lose(&self, why: &str) {
        let is_first = self.0.lost.send_if_modified(|lost| {
            let is_first = lost.is_none();
            lost.get_or_insert_with(|| why.to_owned());
            is_first
        });
        if !is_first {
            return;
        }
        for (_, route) in locked(&self.0.routes).drain() {
            // A subscription whose buffer is full learns it from the end of its channel.
            let _full = route.try_send((Heard::Lost(why.to_owned()), budget::Held::default()));
        }
        locked(&self.0.sent).clear();
        locked(&self.0.room).take();
    }
}

fn add(counter: &AtomicI64, bytes: usize) {
    counter.fetch_add(i64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
}

/// Cuts a message of the upstream for the log.
fn cut(text: &str) -> String {
    text.chars().take(LOGGED_CHARS).collect()
}

#[cfg(test)]
mod tests;
