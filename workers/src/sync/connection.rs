//! One connection of this process to an upstream, shared by its lanes: routes what comes to whoever
//! waits for it, and says who we are when asked (NIP-42).

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use nostr::{
    event::{EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc, oneshot, watch};
use uuid::Uuid;

use super::{
    error::StepError,
    message::{self, Message},
    socket::{self, Incoming, Outgoing, Reader},
};

/// Messages that wait for one subscription; then the socket is not read, which holds up the relay.
const BUFFER: usize = 1000;
/// Longest that a subscription may hold up the socket.
const TAKEN_WITHIN: Duration = Duration::from_secs(30);
/// A connection that nobody uses is closed after this.
const IDLE_FOR: Duration = Duration::from_mins(5);
/// Longest wait for the answer to an authentication.
const AUTH_WITHIN: Duration = Duration::from_secs(10);
/// Unreadable messages per minute after which the relay is given up.
const MAX_MALFORMED: u32 = 100;
/// What of an unreadable message is logged.
const LOGGED_BYTES: usize = 512;

/// Where authentication stands.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Auth {
    /// Nobody asked.
    Unasked,
    /// Our answer is on its way.
    Asked,
    Done,
    Refused(String),
}

/// What a subscription hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Event(String),
    Eose,
    Closed(String),
    NegMsg(String),
    NegErr(String, Option<u64>),
    /// Only reconciliations hear notices: some relays refuse them so.
    Notice(String),
    Lost(String),
}

#[derive(Debug)]
struct Shared {
    url: String,
    key: Option<Keys>,
    routes: Mutex<HashMap<String, mpsc::Sender<Heard>>>,
    sent: Mutex<HashMap<String, oneshot::Sender<(bool, String)>>>,
    outgoing: mpsc::Sender<Outgoing>,
    auth: watch::Sender<Auth>,
    lost: watch::Sender<Option<String>>,
    used: Mutex<Instant>,
    bytes_in: AtomicI64,
    bytes_out: AtomicI64,
    strays: AtomicI64,
}

/// A connection; clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Connection(Arc<Shared>);

/// A subscription; dropping it ends it on the relay too.
#[derive(Debug)]
pub(crate) struct Subscription {
    id: String,
    connection: Connection,
    heard: mpsc::Receiver<Heard>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner) // each holds one consistent value
}

impl Connection {
    /// Connects; the permit is held for as long as the connection lives.
    pub(crate) async fn open(
        url: &str,
        key: Option<Keys>,
        permit: OwnedSemaphorePermit,
    ) -> Result<Self, StepError> {
        let (writer, reader) = socket::connect(url).await?;
        let (outgoing, to_write) = mpsc::channel(128);
        let shared = Shared {
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
        };
        let connection = Self(Arc::new(shared));
        tokio::spawn(socket::write(writer, to_write));
        let reading = connection.clone();
        tokio::spawn(async move {
            let why = reading.read(reader).await;
            reading.lose(&why);
            drop(permit);
        });
        Ok(connection)
    }

    /// Why it is lost, if it is.
    pub(crate) fn lost(&self) -> Option<String> {
        self.0.lost.borrow().clone()
    }

    /// Whether it is open, and to this address.
    pub(crate) fn is_to(&self, url: &str) -> bool {
        self.lost().is_none() && self.0.url == url
    }

    /// Subscriptions open on it.
    pub(crate) fn subscriptions(&self) -> usize {
        locked(&self.0.routes).len()
    }

    /// Bytes received and sent since it was opened.
    pub(crate) fn bytes(&self) -> (i64, i64) {
        (self.0.bytes_in.load(Ordering::Relaxed), self.0.bytes_out.load(Ordering::Relaxed))
    }

    /// Events and answers that nobody had asked for, since last asked.
    pub(crate) fn take_strays(&self) -> i64 {
        self.0.strays.swap(0, Ordering::Relaxed)
    }

    /// Ends it.
    pub(crate) async fn close(&self) {
        let _gone_already = self.0.outgoing.send(Outgoing::Close).await;
        self.lose("closed by us");
    }

    /// Opens a route for `prefix` and a random rest; what is sent with its id is answered to it.
    pub(crate) fn subscribe(&self, prefix: &str) -> Subscription {
        let random = Uuid::new_v4().simple().to_string();
        let id = format!("{prefix}_{}", &random[..if prefix == "fetch" { 8 } else { 16 }]);
        let (sender, heard) = mpsc::channel(BUFFER);
        if let Some(why) = self.lost() {
            let _room_for_one = sender.try_send(Heard::Lost(why));
        }
        locked(&self.0.routes).insert(id.clone(), sender);
        *locked(&self.0.used) = Instant::now();
        Subscription { id, connection: self.clone(), heard }
    }

    /// Sends a message.
    pub(crate) async fn send(&self, message: &Value) -> Result<(), StepError> {
        let text = message.to_string();
        self.0.bytes_out.fetch_add(i64::try_from(text.len()).unwrap_or(0), Ordering::Relaxed);
        *locked(&self.0.used) = Instant::now();
        let sent = self.0.outgoing.send(Outgoing::Text(text)).await;
        sent.map_err(|_| {
            StepError::Connection(self.lost().unwrap_or_else(|| "the connection broke".to_owned()))
        })
    }

    /// Sends an event; the answer comes by the receiver, which ends without one when it is lost.
    pub(crate) async fn publish(
        &self,
        id: &str,
        event: &Value,
    ) -> Result<oneshot::Receiver<(bool, String)>, StepError> {
        let (sender, answer) = oneshot::channel();
        locked(&self.0.sent).insert(id.to_owned(), sender);
        if let Some(why) = self.lost() {
            return Err(StepError::Connection(why));
        }
        self.send(&json!(["EVENT", event])).await?;
        Ok(answer)
    }

    /// Nobody waits for the answer any more.
    pub(crate) fn forget(&self, id: &str) {
        locked(&self.0.sent).remove(id);
    }

    /// Waits until the relay knows who we are; for a step that it refused for want of that.
    pub(crate) async fn authenticated(&self) -> Result<(), StepError> {
        if self.0.key.is_none() {
            return Err(StepError::Auth(
                "the relay wants authentication and there is no key for it: set RELAY_PRIVATE_KEY"
                    .to_owned(),
            ));
        }
        let mut auth = self.0.auth.subscribe();
        let decided = auth.wait_for(|auth| matches!(auth, Auth::Done | Auth::Refused(_)));
        match tokio::time::timeout(AUTH_WITHIN, decided).await {
            Ok(Ok(auth)) => match &*auth {
                Auth::Refused(why) => {
                    Err(StepError::Auth(format!("the relay refused our authentication: {why}")))
                }
                _ => Ok(()),
            },
            _ => Err(StepError::Auth(
                "the relay wants authentication and sent no challenge, or no answer to ours"
                    .to_owned(),
            )),
        }
    }

    /// Reads until the connection is lost; why it is.
    async fn read(&self, mut reader: Reader) -> String {
        let (mut malformed, mut minute) = (0, Instant::now());
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
                    return "the relay did not answer a ping within 30 s".to_owned();
                }
                Ok(Incoming::Quiet) => {
                    if self.is_idle() {
                        self.close().await;
                        return "closed by us: nobody used it".to_owned();
                    }
                    is_asked = true;
                    let _full_means_busy = self.0.outgoing.try_send(Outgoing::Ping);
                }
                Ok(Incoming::Alive) => is_asked = false,
                Ok(Incoming::Text(text)) => {
                    is_asked = false;
                    self.0
                        .bytes_in
                        .fetch_add(i64::try_from(text.len()).unwrap_or(0), Ordering::Relaxed);
                    if let Some(message) = message::parse(&text) {
                        self.route(message).await;
                        continue;
                    }
                    if minute.elapsed() > Duration::from_mins(1) {
                        (malformed, minute) = (0, Instant::now());
                    }
                    malformed += 1;
                    let cut: String = text.chars().take(LOGGED_BYTES).collect();
                    tracing::debug!(url = self.0.url, message = cut, "an unreadable message");
                    if malformed > MAX_MALFORMED {
                        return format!(
                            "more than {MAX_MALFORMED} unreadable messages in a minute"
                        );
                    }
                }
            }
        }
    }

    fn is_idle(&self) -> bool {
        locked(&self.0.routes).is_empty() && locked(&self.0.used).elapsed() > IDLE_FOR
    }

    async fn route(&self, message: Message) {
        match message {
            Message::Event(id, event) => self.deliver(&id, Heard::Event(event)).await,
            Message::Eose(id) => self.deliver(&id, Heard::Eose).await,
            Message::Closed(id, why) => self.deliver(&id, Heard::Closed(why)).await,
            Message::NegMsg(id, frame) => self.deliver(&id, Heard::NegMsg(frame)).await,
            Message::NegErr(id, why, most) => self.deliver(&id, Heard::NegErr(why, most)).await,
            Message::Ok(id, is_taken, words) => {
                let waiting = locked(&self.0.sent).remove(&id);
                match waiting {
                    Some(waiting) => drop(waiting.send((is_taken, words))),
                    None => self.stray(),
                }
            }
            Message::Notice(words) => self.notice(&words).await,
            Message::Auth(challenge) => self.answer(&challenge),
            Message::Unknown(verb) => tracing::debug!(url = self.0.url, verb, "an unknown message"),
        }
    }

    async fn deliver(&self, id: &str, heard: Heard) {
        let route = locked(&self.0.routes).get(id).cloned();
        let Some(route) = route else { return self.stray() };
        if route.try_send(heard.clone()).is_ok() {
            return;
        }
        // Full: the relay waits with us, but not for ever.
        if route.send_timeout(heard, TAKEN_WITHIN).await.is_err() {
            locked(&self.0.routes).remove(id);
        }
    }

    fn stray(&self) {
        self.0.strays.fetch_add(1, Ordering::Relaxed);
    }

    async fn notice(&self, words: &str) {
        let cut: String = words.chars().take(LOGGED_BYTES).collect();
        tracing::debug!(url = self.0.url, notice = cut, "a notice");
        let ids: Vec<String> =
            locked(&self.0.routes).keys().filter(|id| id.starts_with("neg_")).cloned().collect();
        for id in ids {
            self.deliver(&id, Heard::Notice(cut.clone())).await;
        }
    }

    /// Answers a challenge, in a task of its own: signing is not the socket's work.
    fn answer(&self, challenge: &str) {
        let Some(key) = self.0.key.clone() else { return };
        let (connection, challenge) = (self.clone(), challenge.to_owned());
        connection.0.auth.send_replace(Auth::Asked);
        tokio::spawn(async move {
            let signed = EventBuilder::new(Kind::Authentication, "")
                .tag(Tag::custom("relay", [connection.0.url.as_str()]))
                .tag(Tag::custom("challenge", [challenge.as_str()]))
                .finalize(&key);
            let Ok(event) = signed else { return };
            let (sender, answer) = oneshot::channel();
            locked(&connection.0.sent).insert(event.id.to_hex(), sender);
            if connection.send(&json!(["AUTH", event])).await.is_err() {
                return;
            }
            let auth = match tokio::time::timeout(AUTH_WITHIN, answer).await {
                Ok(Ok((true, _))) => Auth::Done,
                Ok(Ok((false, words))) => Auth::Refused(words),
                _ => Auth::Refused("no answer within 10 s".to_owned()),
            };
            connection.0.auth.send_replace(auth);
        });
    }

    /// Tells everybody who waits.
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
            // A full one finds its sender gone.
            let _full = route.try_send(Heard::Lost(why.to_owned()));
        }
        locked(&self.0.sent).clear();
    }
}

impl Subscription {
    /// Its id on the relay.
    pub(crate) fn id(&self) -> &str {
        &self.id
    }

    /// The next that it hears, within `silence`.
    pub(crate) async fn next(&mut self, silence: Duration) -> Result<Heard, StepError> {
        let lost = || {
            let why = self.connection.lost();
            StepError::Connection(why.unwrap_or_else(|| "the connection broke".to_owned()))
        };
        match tokio::time::timeout(silence, self.heard.recv()).await {
            Ok(Some(Heard::Lost(why))) => Err(StepError::Connection(why)),
            Ok(Some(heard)) => Ok(heard),
            Ok(None) => Err(lost()),
            Err(_) => {
                Err(StepError::Silent(format!("the relay was silent for {} s", silence.as_secs())))
            }
        }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let was_open = locked(&self.connection.0.routes).remove(&self.id).is_some();
        *locked(&self.connection.0.used) = Instant::now();
        if was_open {
            let verb = if self.id.starts_with("neg_") { "NEG-CLOSE" } else { "CLOSE" };
            let close = json!([verb, self.id]).to_string();
            // Full means that the relay takes nothing; then it does not matter.
            let _full = self.connection.0.outgoing.try_send(Outgoing::Text(close));
        }
    }
}
