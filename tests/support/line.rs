//! A line between us and a relay that can be cut, and that counts what passes.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use futures_util::{SinkExt, StreamExt};
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// A line to a relay. It ends when this is dropped.
pub struct Line {
    pub url: String,
    state: Arc<State>,
    task: tokio::task::JoinHandle<()>,
}

struct State {
    target: String,
    is_cut: watch::Sender<bool>,
    /// Whether the relay's messages are held back.
    is_stalled: watch::Sender<bool>,
    heard: Mutex<Vec<Value>>,
    connected: AtomicUsize,
    open: AtomicUsize,
    most_open: AtomicUsize,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.task.abort();
        self.state.is_cut.send_replace(true);
    }
}

impl Line {
    pub async fn to(url: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = format!("ws://{}", listener.local_addr().unwrap());
        let state = Arc::new(State {
            target: url.to_owned(),
            is_cut: watch::Sender::new(false),
            is_stalled: watch::Sender::new(false),
            heard: Mutex::default(),
            connected: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            most_open: AtomicUsize::new(0),
        });
        let task = tokio::spawn(accept(listener, state.clone()));
        Self { url: own, state, task }
    }

    /// Ends every connection, and accepts none until [`mend`](Self::mend).
    pub fn cut(&self) {
        self.state.is_cut.send_replace(true);
    }

    pub fn mend(&self) {
        self.state.is_cut.send_replace(false);
    }

    /// Holds the relay's messages back; the connection stays open.
    pub fn stall(&self) {
        self.state.is_stalled.send_replace(true);
    }

    /// Lets the relay's messages pass again.
    pub fn resume(&self) {
        self.state.is_stalled.send_replace(false);
    }

    /// What the relay was told, in order.
    pub fn heard(&self) -> Vec<Value> {
        self.state.heard.lock().unwrap().clone()
    }

    /// Forgets what the relay was told.
    pub fn forget(&self) {
        self.state.heard.lock().unwrap().clear();
    }

    /// Connections so far, those that a cut line refused included.
    pub fn attempts(&self) -> usize {
        self.state.connected.load(Ordering::SeqCst)
    }

    /// Open connections, and the most that were open at the same time.
    pub fn open(&self) -> (usize, usize) {
        (self.state.open.load(Ordering::SeqCst), self.state.most_open.load(Ordering::SeqCst))
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(carry(stream, state.clone()));
    }
}

async fn carry(stream: TcpStream, state: Arc<State>) {
    let mut is_cut = state.is_cut.subscribe();
    if *is_cut.borrow() {
        state.connected.fetch_add(1, Ordering::SeqCst);
        return;
    }
    // A request for NIP-11 is no websocket: it finds its connection closed.
    let Ok(near) = tokio_tungstenite::accept_async(stream).await else { return };
    state.connected.fetch_add(1, Ordering::SeqCst);
    let Ok((far, _)) = tokio_tungstenite::connect_async(&state.target).await else { return };
    let open = state.open.fetch_add(1, Ordering::SeqCst) + 1;
    state.most_open.fetch_max(open, Ordering::SeqCst);
    let ((mut to_near, mut from_near), (mut to_far, mut from_far)) = (near.split(), far.split());
    let up = async {
        while let Some(Ok(message)) = from_near.next().await {
            if let Ok(text) = message.to_text()
                && let Ok(value) = serde_json::from_str::<Value>(text)
            {
                state.heard.lock().unwrap().push(value);
            }
            if to_far.send(message).await.is_err() {
                break;
            }
        }
    };
    let down = async {
        let mut is_stalled = state.is_stalled.subscribe();
        while let Some(Ok(message)) = from_far.next().await {
            drop(is_stalled.wait_for(|is_stalled| !is_stalled).await);
            if to_near.send(message).await.is_err() {
                break;
            }
        }
    };
    tokio::select! {
        () = up => {}
        () = down => {}
        () = async { drop(is_cut.wait_for(|is_cut| *is_cut).await) } => {}
    }
    state.open.fetch_sub(1, Ordering::SeqCst);
}
