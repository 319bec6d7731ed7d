//! A stand-in for zooid: an in-process server that behaves like zooid's management API, including
//! its checks and message texts, and produces faults on request. The demo, the tests and the
//! benchmarks use it.

mod answer;
mod auth;
mod document;
mod gate;
mod work;

use std::{
    collections::{BTreeMap, HashMap},
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{extract::Request, response::Response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use nostr::key::PublicKey;
use serde_json::Value;
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_util::sync::{CancellationToken, DropGuard};

pub use gate::Gate;

/// A fault of a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The change is not applied. The answer has this status, an error in JSON and, if given,
    /// `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// The change is applied. The answer has status 200 and a body that is not JSON.
    Garbage,
    /// The change is applied. The body of the answer breaks off.
    HalfAnswer,
    /// The call is delayed by this time, then applied and answered.
    Delay(Duration),
    /// Waits at the gate before anything is applied.
    Hold(Gate),
    /// The change is not applied. The connection closes without an answer.
    DropBefore,
    /// The change is applied. The connection closes without an answer.
    DropAfter,
    /// The connection closes at once, without an answer. The request waits at the gate, and is then
    /// checked and applied, as an abandoned request on a slow zooid.
    Late(Gate),
    /// The request is checked at once and waits at the gate before it is applied, whatever has
    /// happened in between: two POSTs of one id that wait here both succeed, and the later one wins.
    Race(Gate),
}

/// A call that reached the API.
#[derive(Debug, Clone)]
pub struct Call {
    /// The HTTP method.
    pub method: String,
    /// The id of the relay.
    pub relay_id: String,
    /// The status of the answer; `None` if the connection was dropped.
    pub status: Option<u16>,
    /// The time of arrival.
    pub at: Instant,
    /// Whether the call created the relay, perhaps after its client had left.
    pub created: bool,
}

#[derive(Debug)]
struct Planned {
    relay_id: Option<String>,
    fault: Fault,
    /// The number of further calls with this fault; `None` for all.
    times: Option<u32>,
}

#[derive(Debug, Default)]
struct State {
    documents: BTreeMap<String, Value>,
    /// The relay that has a host (`host:…`) or a schema (`schema:…`).
    owners: HashMap<String, String>,
    members: HashMap<String, Vec<String>>,
    faults: Vec<Planned>,
    /// Each call, and whether it created its relay, perhaps after its client had left.
    calls: Vec<(Call, Arc<AtomicBool>)>,
    in_flight: HashMap<String, u32>,
    most_in_flight: u32,
    overlaps: Vec<String>,
}

/// A running stand-in. It stops when this is dropped.
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
    /// Cancelled while connections are refused; replaced when they are accepted again.
    down: Mutex<CancellationToken>,
    up: tokio::sync::Notify,
}

impl ZooidStandIn {
    /// Starts a stand-in on a free port of the loopback interface. Only the keys of `whitelist` may
    /// call it.
    ///
    /// # Errors
    /// No port could be opened.
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

    /// Returns `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the documents of all relays by id.
    pub fn documents(&self) -> BTreeMap<String, Value> {
        self.state().documents.clone()
    }

    /// Returns the number of relays.
    pub fn len(&self) -> usize {
        self.state().documents.len()
    }

    /// Whether there are no relays.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the calls that were answered or whose client has left, in this order. A call whose
    /// client has left may still be applied.
    pub fn calls(&self) -> Vec<Call> {
        let state = self.state();
        let calls = state.calls.iter();
        calls
            .map(|(call, is_created)| Call {
                created: is_created.load(Ordering::Relaxed),
                ..call.clone()
            })
            .collect()
    }

    /// Returns the relays that had two calls at the same time, while the clients of both waited. There
    /// are none if leases work.
    pub fn overlaps(&self) -> Vec<String> {
        self.state().overlaps.clone()
    }

    /// Returns the number of calls whose client waits.
    pub fn in_flight(&self) -> u32 {
        self.state().in_flight.values().sum()
    }

    /// Returns the largest number of calls in flight so far.
    pub fn most_in_flight(&self) -> u32 {
        self.state().most_in_flight
    }

    /// Plans a fault for the next `times` calls (`None` for all calls) of one relay, or of any
    /// relay. Faults occur in the order of their plans.
    pub fn plan(&self, relay_id: Option<&str>, fault: Fault, times: Option<u32>) {
        let relay_id = relay_id.map(str::to_owned);
        self.state().faults.push(Planned { relay_id, fault, times });
    }

    /// Removes all planned faults.
    pub fn heal(&self) {
        self.state().faults.clear();
    }

    /// Closes the port and all connections as if the process were killed, or opens the port again.
    /// Requests that were not applied before are lost.
    pub fn refuse(&self, refuse: bool) {
        let mut down = lock(&self.shared.down);
        if refuse {
            down.cancel();
        } else {
            *down = CancellationToken::new();
            self.shared.up.notify_one();
        }
    }

    /// Removes a relay without a call to the API.
    pub fn lose(&self, relay_id: &str) {
        self.state().remove(relay_id);
    }

    /// Stores a document without a call to the API.
    pub fn put(&self, relay_id: &str, document: Value) {
        self.state().save(relay_id, document);
    }

    /// Sets the members of a relay.
    pub fn set_members(&self, relay_id: &str, members: Vec<String>) {
        self.state().members.insert(relay_id.to_owned(), members);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }
}

/// Locks a mutex even if a call panicked while it held the lock; the state is consistent between
/// statements.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn serve(mut listener: TcpListener, address: SocketAddr, shared: Arc<Shared>) {
    loop {
        let down = lock(&shared.down).clone();
        tokio::select! {
            () = shared.stop.cancelled() => return,
            () = down.cancelled() => {
                drop(listener);
                let Some(again) = listen_again(address, &shared).await else { return };
                listener = again;
            }
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    tokio::spawn(connection(stream, shared.clone(), down));
                }
            }
        }
    }
}

/// Refuses connections until the port is opened again. Returns `None` at the end of the stand-in.
///
/// A socket that is bound and does not listen keeps the port, so that no other program is given it. A
/// child process that is about to start still has the dropped listener, so binding may take some tries.
async fn listen_again(address: SocketAddr, shared: &Shared) -> Option<TcpListener> {
    let reopened = async {
        let socket = loop {
            match bind(address) {
                Ok(socket) => break socket,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        shared.up.notified().await;
        socket.listen(1024).ok()
    };
    shared.stop.run_until_cancelled(reopened).await?
}

fn bind(address: SocketAddr) -> io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

async fn connection(stream: TcpStream, shared: Arc<Shared>, down: CancellationToken) {
    let stop = shared.stop.clone();
    let server = down.clone();
    let service = service_fn(move |request| call(shared.clone(), request, server.clone()));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .serve_connection(TokioIo::new(stream), service);
    tokio::select! {
        _closed = connection => {}
        () = down.cancelled() => {}
        () = stop.cancelled() => {}
    }
}

/// Answers a call. An error closes the connection without an answer.
async fn call(
    shared: Arc<Shared>,
    request: Request<Incoming>,
    down: CancellationToken,
) -> io::Result<Response> {
    let answer = answer::answer(&shared, request, down).await;
    answer.ok_or_else(|| io::ErrorKind::ConnectionAborted.into())
}

/// Returns the host and the schema of a document, which are unique among relays.
fn names(document: &Value) -> [String; 2] {
    ["host", "schema"]
        .map(|field| format!("{field}:{}", document[field].as_str().unwrap_or_default()))
}

impl State {
    /// Returns the fault that is planned for the next call of a relay, and counts it.
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
