//! A stand-in for zooid: an in-process server that behaves like zooid's management API, including
//! its checks and message texts, and produces faults on request. The demo, the tests and the
//! benchmarks use it. It serves the API only: every other host is answered `404 Not Found`.
//!
//! - `serve`: port and connections. `answer`: a call as its client sees it. `work`: what it changes.
//! - `route`, `auth`, `document`, `fields`: zooid's rules and words. `cost`: the time of a write.

mod answer;
mod auth;
mod cost;
mod document;
mod fields;
mod gate;
mod route;
mod serve;
mod state;
mod work;

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering},
    time::{Duration, Instant},
};

use nostr::key::PublicKey;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

pub use gate::Gate;
pub use state::{File, Store};
use state::{Planned, State};

/// A fault of a call.
#[derive(Debug, Clone)]
pub enum Fault {
    /// The change is not applied. The answer has this status, an error in JSON and, if given,
    /// `Retry-After` in seconds.
    Status(u16, Option<u64>),
    /// The change is not applied. The answer has this status and a page that is not zooid's.
    Proxy(u16),
    /// The change is not applied. The answer has this status, and its error in JSON repeats the
    /// request's `Authorization` header and body.
    Echo(u16),
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

/// The rules that a stand-in follows.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// `API_HOST`: the `Host` header of a request must equal it. `None` switches the API off.
    pub host: Option<String>,
    /// `API_WHITELIST`: the public keys that may call the API, in lower-case hex.
    pub whitelist: Vec<String>,
    /// How far the server's clock is ahead of ours, in seconds.
    pub clock_ahead_secs: i64,
    /// Whether a proxy in front of the server adds TLS and says so by `X-Forwarded-Proto: https`.
    pub is_behind_tls: bool,
    /// Whether PUT, PATCH and DELETE answer 409 `relay not found`, as one older commit does.
    pub is_older: bool,
    /// The time of the server's one core that a write takes for each relay; 0.16 ms on a real zooid.
    pub cost_per_relay: Duration,
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
    rules: Mutex<Rules>,
    state: Mutex<State>,
    core: cost::Core,
    stop: CancellationToken,
    /// Cancelled while connections are refused; replaced when they are accepted again.
    down: Mutex<CancellationToken>,
    up: tokio::sync::Notify,
}

impl ZooidStandIn {
    /// Starts a stand-in on a free port of the loopback interface, with the relays in memory. Only the
    /// keys of `whitelist` may call it.
    ///
    /// # Errors
    /// No port could be opened.
    pub async fn start(whitelist: Vec<PublicKey>) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let host = Some(listener.local_addr()?.to_string());
        let whitelist = whitelist.iter().map(PublicKey::to_hex).collect();
        Self::start_on(listener, Rules { host, whitelist, ..Rules::default() }, None)
    }

    /// Starts a stand-in on this port with these rules. With a `store` the relays are also in its files.
    ///
    /// # Errors
    /// The port has no address, or the files could not be read.
    pub fn start_on(
        listener: TcpListener,
        rules: Rules,
        store: Option<Box<dyn Store>>,
    ) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let stop = CancellationToken::new();
        let state = State::of(store)?;
        let shared = Arc::new(Shared {
            rules: Mutex::new(rules),
            state: Mutex::new(state),
            core: cost::Core::default(),
            stop: stop.clone(),
            down: Mutex::default(),
            up: tokio::sync::Notify::new(),
        });
        tokio::spawn(serve::serve(listener, address, shared.clone()));
        Ok(Self { address, shared, _stop: stop.drop_guard() })
    }

    /// Changes the rules for the calls that arrive from now on.
    pub fn tune(&self, change: impl FnOnce(&mut Rules)) {
        change(&mut lock(&self.shared.rules));
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

    /// Returns the number of [`calls`](Self::calls).
    pub fn call_count(&self) -> usize {
        self.state().calls.len()
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

    /// Removes a relay's file without a call to the API.
    pub fn lose(&self, relay_id: &str) {
        self.state().set(relay_id, File::Gone);
    }

    /// Makes a relay's file unreadable: POST then answers 409, PATCH and the members 500; PUT and DELETE
    /// succeed.
    pub fn break_file(&self, relay_id: &str) {
        self.state().set(relay_id, File::Broken);
    }

    /// Stores a document without a call to the API.
    pub fn put(&self, relay_id: &str, document: Value) {
        self.state().set(relay_id, File::Document(document));
    }

    /// Changes a document without a call to the API, as the relay's owner does by NIP-86
    /// (`changerelayname`) or an operator by hand.
    pub fn edit(&self, relay_id: &str, change: impl FnOnce(&mut Value)) {
        let mut state = self.state();
        if let Some(mut document) = state.documents.get(relay_id).cloned() {
            change(&mut document);
            state.set(relay_id, File::Document(document));
        }
    }

    /// Sets the members of a relay.
    pub fn set_members(&self, relay_id: &str, members: Vec<String>) {
        self.state().set_members(relay_id, members);
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
