//! A connection of this process to an upstream, shared by its lanes. One task reads the socket and
//! routes each message to the subscription or upload that waits for it; one task writes.
//!
//! - `route`: subscriptions, and the messages for them.
//! - `auth`: the answer to the upstream's challenge (NIP-42).
//! - `late`: events that come after the end of their page.

mod auth;
mod late;
mod route;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use nostr::key::Keys;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};

use super::{
    error::StepError,
    message,
    socket::{self, Incoming, Outgoing, Reader},
};
use auth::Auth;

pub(crate) use route::{Heard, Subscription};

/// The messages that may wait to be written; then [`Connection::send`] waits.
const TO_WRITE: usize = 128;
/// A connection that has not been used for this long is closed.
const IDLE_FOR: Duration = Duration::from_mins(5);
/// More unreadable messages than this in a minute end the connection.
const MAX_MALFORMED: u32 = 100;
/// The most characters of a message that are logged.
const LOGGED_CHARS: usize = 512;
/// Why a connection was lost, if no other reason is known.
const BROKEN: &str = "the connection to the upstream was lost";

#[derive(Debug)]
struct Shared {
    url: String,
    key: Option<Keys>,
    /// The subscriptions, by id.
    routes: Mutex<HashMap<String, mpsc::Sender<Heard>>>,
    /// The events that wait for their `OK`, by id.
    sent: Mutex<HashMap<String, oneshot::Sender<(bool, String)>>>,
    outgoing: mpsc::Sender<Outgoing>,
    auth: watch::Sender<Auth>,
    /// Why the connection was lost; `None` while it is open.
    lost: watch::Sender<Option<String>>,
    /// When a lane last used the connection.
    used: Mutex<Instant>,
    bytes_in: AtomicI64,
    bytes_out: AtomicI64,
    strays: AtomicI64,
    late: late::Late,
}

/// A connection; its clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Shared>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // a panic leaves each value consistent
}

/// Unreadable messages in the current minute.
struct Malformed {
    since: Instant,
    messages: u32,
}

impl Shared {
    fn new(url: &str, key: Option<Keys>, outgoing: mpsc::Sender<Outgoing>) -> Self {
        Self {
            url: url.to_owned(),
            key,
            routes: Mutex::default(),
            sent: Mutex::default(),
            outgoing,
            auth: watch::Sender::new(Auth::Unasked),
            lost: watch::Sender::new(None),
            used: Mutex::new(Instant::now()),
            bytes_in: AtomicI64::new(0),
            bytes_out: AtomicI64::new(0),
            strays: AtomicI64::new(0),
            late: late::Late::default(),
        }
    }
}

impl Connection {
    /// Connects. The permit is held until the connection is lost.
    pub(crate) async fn open(
        url: &str,
        key: Option<Keys>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, StepError> {
        let (writer, reader) = socket::connect(url).await?;
        let (outgoing, to_write) = mpsc::channel(TO_WRITE);
        let connection = Self(Arc::new(Shared::new(url, key, outgoing)));
        tokio::spawn(socket::write(writer, to_write));
        let reading = connection.clone();
        tokio::spawn(async move {
            let why = reading.read(reader).await;
            reading.lose(&why);
            drop(permit);
        });
        Ok(connection)
    }

    /// Why the connection was lost; `None` while it is open.
    pub(crate) fn lost(&self) -> Option<String> {
        self.0.lost.borrow().clone()
    }

    /// Returns the error of a step whose connection was lost.
    pub(crate) fn lost_error(&self) -> StepError {
        StepError::Connection(self.lost().unwrap_or_else(|| BROKEN.to_owned()))
    }

    /// Whether the connection is open and leads to this URL.
    pub(crate) fn is_to(&self, url: &str) -> bool {
        self.lost().is_none() && self.0.url == url
    }

    /// Returns the bytes received and sent since the connection was opened.
    pub(crate) fn bytes(&self) -> (i64, i64) {
        (self.0.bytes_in.load(Ordering::Relaxed), self.0.bytes_out.load(Ordering::Relaxed))
    }

    /// Closes the connection, and ends its subscriptions.
    pub(crate) async fn close(&self) {
        let _lost_already = self.0.outgoing.send(Outgoing::Close).await;
        self.lose("closed by us");
    }

    /// Sends a message. Waits while many messages are to be written.
    pub(crate) async fn send(&self, message: &Value) -> Result<(), StepError> {
        let text = message.to_string();
        add(&self.0.bytes_out, text.len());
        self.touch();
        self.0.outgoing.send(Outgoing::Text(text)).await.map_err(|_| self.lost_error())
    }

    /// Sends an event. The receiver gets the upstream's answer: whether it took the event, and its
    /// reason. The receiver ends without an answer if the connection is lost.
    pub(crate) async fn publish(
        &self,
        id: &str,
        event: &Value,
    ) -> Result<oneshot::Receiver<(bool, String)>, StepError> {
        let (sender, answer) = oneshot::channel();
        locked(&self.0.sent).insert(id.to_owned(), sender);
        if self.lost().is_some() {
            return Err(self.lost_error());
        }
        self.send(&json!(["EVENT", event])).await?;
        Ok(answer)
    }

    /// Stops waiting for the answer to an event. A late answer counts as one that was not asked
    /// for.
    pub(crate) fn forget(&self, id: &str) {
        locked(&self.0.sent).remove(id);
    }

    fn touch(&self) {
        *locked(&self.0.used) = Instant::now();
    }

    /// Reads until the connection is lost, and returns why.
    async fn read(&self, mut reader: Reader) -> String {
        let mut malformed = Malformed { since: Instant::now(), messages: 0 };
        let mut is_asked = false;
        let mut lost = self.0.lost.subscribe();
        loop {
            let incoming = tokio::select! {
                incoming = socket::read(&mut reader) => incoming,
                _ = lost.wait_for(Option::is_some) => return "closed by us".to_owned(),
            };
            match incoming {
                Err(why) => return why,
                Ok(Incoming::Quiet) if is_asked => {
                    return "the upstream did not answer a ping within 30 s".to_owned();
                }
                Ok(Incoming::Quiet) if self.is_idle() => {
                    self.close().await;
                    return "closed by us: not used for 5 min".to_owned();
                }
                Ok(Incoming::Quiet) => {
                    is_asked = true;
                    let _full_means_busy = self.0.outgoing.try_send(Outgoing::Ping);
                }
                Ok(Incoming::Alive) => is_asked = false,
                Ok(Incoming::Text(text)) => {
                    is_asked = false;
                    if let Err(why) = self.take(&text, &mut malformed).await {
                        return why;
                    }
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        locked(&self.0.routes).is_empty() && locked(&self.0.used).elapsed() > IDLE_FOR
    }

    /// Routes a message. An error says why the connection must end.
    async fn take(&self, text: &str, malformed: &mut Malformed) -> Result<(), String> {
        add(&self.0.bytes_in, text.len());
        if let Some(message) = message::parse(text) {
            self.route(message).await;
            return Ok(());
        }
        tracing::debug!(url = self.0.url, message = cut(text), "message unreadable; ignored");
        if malformed.since.elapsed() > Duration::from_mins(1) {
            *malformed = Malformed { since: Instant::now(), messages: 0 };
        }
        malformed.messages += 1;
        if malformed.messages > MAX_MALFORMED {
            return Err(format!(
                "the upstream sent more than {MAX_MALFORMED} unreadable messages in a minute"
            ));
        }
        Ok(())
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
            let _full = route.try_send(Heard::Lost(why.to_owned()));
        }
        locked(&self.0.sent).clear();
    }
}

fn add(counter: &AtomicI64, bytes: usize) {
    counter.fetch_add(i64::try_from(bytes).unwrap_or(0), Ordering::Relaxed);
}

/// Cuts a message of the upstream for the log.
fn cut(text: &str) -> String {
    text.chars().take(LOGGED_CHARS).collect()
}
