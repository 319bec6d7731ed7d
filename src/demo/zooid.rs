//! A stand-in for zooid: an in-process server that behaves as zooid's management API does, checks
//! and message texts included, with faults on request. The demo, the tests and the benchmark share it.

mod answer;
mod auth;
mod document;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nostr::key::PublicKey;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

/// Something that goes wrong with a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// This status with an error in JSON, and `Retry-After` if given; nothing is applied.
    Status(u16, Option<u64>),
    /// Applied, but answered with 200 and bytes that are no JSON.
    Garbage,
    /// Applied, but the answer's body breaks off.
    HalfAnswer,
    /// Answered after this time.
    Delay(Duration),
    /// The connection closes before anything is applied.
    DropBefore,
    /// The connection closes after the change was applied: the answer is lost.
    DropAfter,
}

/// One call that reached the API.
#[derive(Debug, Clone)]
pub struct Call {
    /// The request's method.
    pub method: String,
    /// The relay's id.
    pub relay_id: String,
    /// What was answered; `None` when the connection was dropped.
    pub status: Option<u16>,
    /// When it arrived.
    pub at: Instant,
    /// Whether it made the relay.
    pub created: bool,
}

#[derive(Debug)]
struct Planned {
    relay_id: Option<String>,
    fault: Fault,
    /// How many calls still; `None`: all.
    times: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<String, Value>,
    /// Who has a host or a schema, as `host:…` and `schema:…`.
    owners: HashMap<String, String>,
    members: HashMap<String, Vec<String>>,
    faults: Vec<Planned>,
    calls: Vec<Call>,
    in_flight: HashMap<String, u32>,
    most_in_flight: u32,
    overlaps: Vec<String>,
}

/// The server; it ends when this is dropped.
#[derive(Debug)]
pub struct ZooidStandIn {
    address: SocketAddr,
    shared: Arc<Shared>,
    _stop: DropGuard,
}

#[derive(Debug)]
struct Shared {
    whitelist: Vec<PublicKey>,
    state: Mutex<State>,
    stop: CancellationToken,
    /// Cancelled while connections are refused; replaced when they are not.
    down: Mutex<CancellationToken>,
    up: tokio::sync::Notify,
}

impl ZooidStandIn {
    /// Starts on a free port of the loopback interface; `whitelist` are the keys that may call.
    ///
    /// # Errors
    /// No port could be had.
    pub async fn start(whitelist: Vec<PublicKey>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let shared = Arc::new(Shared {
            whitelist,
            state: Mutex::default(),
            stop: stop.clone(),
            down: Mutex::default(),
            up: tokio::sync::Notify::new(),
        });
        tokio::spawn(serve(listener, address, shared.clone()));
        Ok(Self { address, shared, _stop: stop.drop_guard() })
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Every relay's document by id.
    pub fn documents(&self) -> BTreeMap<String, Value> {
        self.state().documents.clone()
    }

    /// The number of relays.
    pub fn len(&self) -> usize {
        self.state().documents.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Every call so far, in order of arrival.
    pub fn calls(&self) -> Vec<Call> {
        self.state().calls.clone()
    }

    /// Relays that had two calls at the same time; none, if leases work.
    pub fn overlaps(&self) -> Vec<String> {
        self.state().overlaps.clone()
    }

    /// Calls that wait for their answer.
    pub fn in_flight(&self) -> u32 {
        self.state().in_flight.values().sum()
    }

    /// The most calls that waited for their answer at once.
    pub fn most_in_flight(&self) -> u32 {
        self.state().most_in_flight
    }

    /// Plans a fault for the next `times` calls (`None`: for all) of one relay, or of any. Faults
    /// planned first go first.
    pub fn plan(&self, relay_id: Option<&str>, fault: Fault, times: Option<u32>) {
        let relay_id = relay_id.map(str::to_owned);
        self.state().faults.push(Planned { relay_id, fault, times });
    }

    /// Forgets every planned fault.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Closes the port and every connection, or opens the port again.
    pub fn refuse(&self, refuse: bool) {
        let mut down = lock(&self.shared.down);
        if refuse {
            down.cancel();
        } else {
            *down = CancellationToken::new();
            self.shared.up.notify_one();
        }
    }

    /// Removes a relay behind the API's back.
    pub fn lose(&self, relay_id: &str) {
        self.state().remove(relay_id);
    }

    /// Puts a document behind the API's back.
    pub fn put(&self, relay_id: &str, document: Value) {
        self.state().save(relay_id, document);
    }

    /// Sets who a relay's members are.
    pub fn set_members(&self, relay_id: &str, members: Vec<String>) {
        self.state().members.insert(relay_id.to_owned(), members);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

/// A panic of one call must not take the stand-in down: its state is whole between statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    let mut listener = Some(listener);
    while !shared.stop.is_cancelled() {
        let down = lock(&shared.down).clone();
        let Some(open) = listener.take() else {
            tokio::select! {
                () = shared.up.notified() => listener = bind_again(address).await,
                () = shared.stop.cancelled() => {}
            }
            continue;
        };
        tokio::select! {
            () = shared.stop.cancelled() => {}
            () = down.cancelled() => {} // the listener is dropped here: connections are refused
            accepted = open.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(connection(stream, shared.clone(), down));
                }
                listener = Some(open);
            }
        }
    }
}

/// The port was ours a moment ago; the kernel may need a few tries to give it back.
async fn bind_again(address: SocketAddr) -> Option<TcpListener> {
    for _ in 0..50 {
        if let Ok(listener) = TcpListener::bind(address).await {
            return Some(listener);
        }
        tokio::task::yield_now().await;
    }
    None
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, down: CancellationToken) {
    let stop = shared.stop.clone();
    let service = service_fn(move |request| call(shared.clone(), request));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _closed = connection => {}
        () = down.cancelled() => {}
        () = stop.cancelled() => {}
    }
}

/// One call; an error closes the connection without an answer.
async fn call(shared: Arc<Shared>, request: Request<Incoming>) -> io::Result<Response> {
    answer::answer(&shared, request).await.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
}

/// What no two relays may share.
fn names(document: &Value) -> [String; 2] {
    ["host", "schema"]
        .map(|field| format!("{field}:{}", document[field].as_str().unwrap_or_default()))
}

impl State {
    /// The next fault of a call, if one is planned.
    fn next_fault(&mut self, relay_id: &str) -> Option<Fault> {
        let planned = self.faults.iter_mut().find(|planned| {
            planned.times != Some(0) && planned.relay_id.as_deref().is_none_or(|id| id == relay_id)
        })?;
        planned.times = planned.times.map(|times| times - 1);
        Some(planned.fault.clone())
    }

    fn save(&mut self, relay_id: &str, document: Value) {
        self.remove(relay_id);
        for key in names(&document) {
            self.owners.insert(key, relay_id.to_owned());
        }
        self.documents.insert(relay_id.to_owned(), document);
    }

    fn remove(&mut self, relay_id: &str) {
        if let Some(document) = self.documents.remove(relay_id) {
            for key in names(&document) {
                self.owners.remove(&key);
            }
        }
    }
}
