//! Connections to upstreams that misbehave below the level of Nostr.

mod auth;
mod large;
mod silence;
mod tls;

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use rustls::ClientConfig;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

use super::*;
use crate::mirror::socket::Patience;

/// The largest event of these tests.
const MAX_EVENT: usize = 10_000;
/// The longest message of these tests.
const MAX_MESSAGE: usize = 20_000;
/// Longer than any wait of these tests on a busy machine.
const PATIENCE: Duration = Duration::from_mins(2);

type Server = WebSocketStream<TcpStream>;

/// Starts an upstream whose connections `serve` gets before the upgrade. Returns `host:port`.
async fn raw_upstream<F>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Starts an upstream whose connections `serve` gets after the upgrade. Returns its URL.
async fn upstream<F>(serve: impl Fn(Server) -> F + Clone + Send + Sync + 'static) -> String
where
    F: Future<Output = ()> + Send + 'static,
{
    let address = raw_upstream(move |stream| {
        let serve = serve.clone();
        async move {
            let server = tokio_tungstenite::accept_async(stream).await.expect("an upgrade");
            serve(server).await;
        }
    });
    format!("ws://{}", address.await)
}

/// The next message of ours, as JSON; `Null` at the end.
async fn heard(server: &mut Server) -> Value {
    while let Some(Ok(message)) = server.next().await {
        if let Ok(value) = serde_json::from_str(message.to_text().unwrap_or_default()) {
            return value;
        }
    }
    Value::Null
}

async fn say(server: &mut Server, message: Value) {
    let _gone = server.send(Message::text(message.to_string())).await;
}

fn opening(url: &str, key: Option<Keys>, tls: Arc<ClientConfig>) -> Opening {
    let permits = Arc::new(Semaphore::new(1));
    let target = Target {
        url: url.to_owned(),
        allow_private: true,
        max_message: MAX_MESSAGE,
        compress: true,
        tls,
        patience: Patience::default(),
    };
    let room = permits.try_acquire_owned().expect("a permit");
    Opening { target, max_event: MAX_EVENT, key, room, refusals: Refusals::default() }
}

/// As [`connected`], and nothing is waited for longer than this.
async fn impatient(url: &str, waits: Patience) -> Connection {
    let mut opening = opening(url, None, socket::tls(&[]));
    opening.target.patience = waits;
    Connection::open(opening).await.expect("a connection")
}

async fn connected(url: &str, key: Option<Keys>) -> Connection {
    Connection::open(opening(url, key, socket::tls(&[]))).await.expect("a connection")
}

/// Waits until the connection is lost, and returns why.
async fn loss(connection: &Connection) -> String {
    let mut lost = connection.0.lost.subscribe();
    let lost = lost.wait_for(Option::is_some).await.expect("it is lost");
    lost.clone().unwrap_or_default()
}
