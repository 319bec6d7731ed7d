//! Relays in this process: real ones, and one that plays many.

use std::{net::Ipv4Addr, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use nostr::event::Event;
use nostr_database::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{
    LocalRelay, RelayBuilder,
    builder::RateLimit,
    prelude::{Event as TheirEvent, JsonUtil},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// A relay of rust-nostr's, in memory.
pub(crate) struct Relay {
    server: LocalRelay,
    database: Arc<MemoryDatabase>,
    pub(crate) url: String,
}

impl Relay {
    pub(crate) async fn start() -> Self {
        let options = MemoryDatabaseOptions { events: true, max_events: None };
        let database = Arc::new(MemoryDatabase::with_opts(options));
        let builder = RelayBuilder::default()
            .addr(Ipv4Addr::LOCALHOST.into())
            .database(database.clone())
            .rate_limit(RateLimit { max_reqs: 100_000, notes_per_minute: u32::MAX });
        let server = LocalRelay::new(builder);
        server.run().await.unwrap();
        let url = server.url().await.to_string().trim_end_matches('/').to_owned();
        Self { server, database, url }
    }

    pub(crate) async fn fill(&self, events: &[Event]) {
        for event in events {
            self.database.save_event(&theirs(event)).await.unwrap();
        }
    }

    /// Stores an event, and tells the relay's subscribers.
    pub(crate) async fn publish(&self, event: &Event) {
        self.fill(std::slice::from_ref(event)).await;
        self.server.notify_event(theirs(event));
    }
}

fn theirs(event: &Event) -> TheirEvent {
    TheirEvent::from_json(serde_json::to_string(event).unwrap()).unwrap()
}

/// Many empty relays at one port, by path. They support no NIP-77.
pub(crate) struct Many {
    base: String,
}

impl Many {
    pub(crate) async fn start(count: usize) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("ws://{}", listener.local_addr().unwrap());
        println!("{count} empty relays listen at {base}");
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream));
            }
        });
        Self { base }
    }

    pub(crate) fn url(&self, number: usize) -> String {
        format!("{}/{number}", self.base)
    }
}

/// Answers each request with EOSE, and each NEG-OPEN with an error.
async fn answer(stream: TcpStream) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    while let Some(Ok(message)) = socket.next().await {
        let text = message.to_text().unwrap_or_default();
        let Ok(message) = serde_json::from_str::<Value>(text) else { continue };
        let answer = match message[0].as_str() {
            Some("REQ") => json!(["EOSE", message[1]]),
            Some("NEG-OPEN") => json!(["NEG-ERR", message[1], "error: not supported"]),
            _ => continue,
        };
        if socket.send(Message::text(answer.to_string())).await.is_err() {
            return;
        }
    }
}
