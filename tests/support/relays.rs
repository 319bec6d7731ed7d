//! Relays for event sync: real ones in this process, and a scripted one for every misbehaviour.

use std::{
    io::ErrorKind,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{SinkExt, StreamExt, future::BoxFuture, stream::SplitSink};
use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};
use nostr_database::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{
    LocalRelay, RelayBuilder,
    builder::RateLimit,
    error::Error,
    prelude::{Event as TheirEvent, Filter as TheirFilter, JsonUtil},
};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::{WebSocketStream, tungstenite::Message};

pub use super::proxy::{Proxy, gated, proxy, spy};

/// A relay of rust-nostr's, in memory, without limits.
pub struct RealRelay {
    relay: LocalRelay,
    database: Arc<MemoryDatabase>,
    pub url: String,
}

impl RealRelay {
    pub async fn start() -> Self {
        Self::with(|builder| builder).await
    }

    pub async fn with(tune: impl FnOnce(RelayBuilder) -> RelayBuilder) -> Self {
        let options = MemoryDatabaseOptions { events: true, max_events: None };
        let database = Arc::new(MemoryDatabase::with_opts(options));
        let builder = RelayBuilder::default()
            .addr(std::net::Ipv4Addr::LOCALHOST.into())
            .database(database.clone())
            .rate_limit(RateLimit { max_reqs: 10_000, notes_per_minute: u32::MAX });
        let builder = tune(builder);
        // It looks for a free port and binds it later; in between, another process may take the port.
        let relay = loop {
            let relay = LocalRelay::new(builder.clone());
            match relay.run().await {
                Ok(()) => break relay,
                Err(Error::IO(error)) if error.kind() == ErrorKind::AddrInUse => {}
                Err(error) => panic!("{error}"),
            }
        };
        let url = relay.url().await.to_string().trim_end_matches('/').to_owned();
        Self { relay, database, url }
    }

    /// Ids of what it has, sorted.
    pub async fn ids(&self) -> Vec<String> {
        let events = self.database.query(TheirFilter::new()).await.unwrap();
        let mut ids: Vec<String> = events.iter().map(|event| event.id.to_hex()).collect();
        ids.sort();
        ids
    }

    /// Loses everything.
    pub async fn wipe(&self) {
        self.database.wipe().await.unwrap();
    }

    /// Stores events, and tells its subscribers.
    pub async fn add(&self, events: &[Event]) {
        for event in events {
            let theirs = TheirEvent::from_json(serde_json::to_string(event).unwrap()).unwrap();
            self.database.save_event(&theirs).await.unwrap();
            self.relay.notify_event(theirs);
        }
    }
}

/// An event of kind 1.
pub fn note(keys: &Keys, at: i64, content: &str) -> Event {
    event(keys, 1, at, content, Vec::new())
}

pub fn event(keys: &Keys, kind: u16, at: i64, content: &str, tags: Vec<Vec<&str>>) -> Event {
    let tags = tags.into_iter().map(|tag| Tag::parse(tag).unwrap());
    EventBuilder::new(Kind::from(kind), content)
        .tags(tags)
        .custom_created_at(Timestamp::from(u64::try_from(at).unwrap()))
        .finalize(keys)
        .unwrap()
}

/// So many notes, one every `step` seconds, the last at `until`.
pub fn notes(keys: &Keys, count: usize, until: i64, step: i64) -> Vec<Event> {
    (0..count)
        .map(|index| {
            note(keys, until - step * i64::try_from(index).unwrap(), &format!("note {index}"))
        })
        .collect()
}

pub fn ids(events: &[Event]) -> Vec<String> {
    let mut ids: Vec<String> = events.iter().map(|event| event.id.to_hex()).collect();
    ids.sort();
    ids
}

type Answers = Arc<dyn Fn(Client, Value) -> BoxFuture<'static, ()> + Send + Sync>;

/// A connection of the scripted relay's, to answer on.
#[derive(Clone)]
pub struct Client {
    sink: Arc<tokio::sync::Mutex<SplitSink<WebSocketStream<TcpStream>, Message>>>,
}

impl Client {
    pub async fn send(&self, message: Value) {
        self.raw(&message.to_string()).await;
    }

    pub async fn raw(&self, text: &str) {
        let _gone = self.sink.lock().await.send(Message::text(text.to_owned())).await;
    }

    pub async fn close(&self) {
        let _gone = self.sink.lock().await.close().await;
    }
}

/// A relay that answers as its script says, and records what it was told.
pub struct FakeRelay {
    pub url: String,
    heard: Arc<Mutex<Vec<Value>>>,
    pub connections: Arc<AtomicUsize>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for FakeRelay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeRelay {
    /// `script` answers each message.
    pub async fn start<F>(script: impl Fn(Client, Value) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let script: Answers = Arc::new(move |client, message| Box::pin(script(client, message)));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let heard: Arc<Mutex<Vec<Value>>> = Arc::default();
        let connections = Arc::new(AtomicUsize::new(0));
        let (record, count) = (heard.clone(), connections.clone());
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (script, record, count) = (script.clone(), record.clone(), count.clone());
                tokio::spawn(async move {
                    // A request for NIP-11 is no websocket: it finds its connection closed.
                    let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
                    count.fetch_add(1, Ordering::SeqCst);
                    let (sink, mut stream) = socket.split();
                    let client = Client { sink: Arc::new(tokio::sync::Mutex::new(sink)) };
                    while let Some(Ok(message)) = stream.next().await {
                        let Ok(text) = message.to_text() else { continue };
                        let Ok(value) = serde_json::from_str::<Value>(text) else { continue };
                        record.lock().unwrap().push(value.clone());
                        script(client.clone(), value).await;
                    }
                });
            }
        });
        Self { url, heard, connections, task }
    }

    /// Everything it was told, in order.
    pub fn heard(&self) -> Vec<Value> {
        self.heard.lock().unwrap().clone()
    }

    /// The messages with this verb.
    pub fn verbs(&self, verb: &str) -> Vec<Value> {
        self.heard().into_iter().filter(|message| message[0] == verb).collect()
    }
}

/// Answers a REQ from these events as NIP-01 says, newest first, at most `cap` of them.
pub async fn serve_req(client: &Client, message: &Value, events: &[Value], cap: usize) {
    let filter = &message[2];
    let wanted = |event: &&Value| {
        let at = event["created_at"].as_i64().unwrap_or_default();
        filter["since"].as_i64().is_none_or(|since| at >= since)
            && filter["until"].as_i64().is_none_or(|until| at <= until)
            && filter["ids"].as_array().is_none_or(|ids| ids.contains(&event["id"]))
    };
    let mut found: Vec<&Value> = events.iter().filter(wanted).collect();
    found.sort_by_key(|event| std::cmp::Reverse(event["created_at"].as_i64()));
    let limit =
        filter["limit"].as_u64().map_or(cap, |limit| cap.min(usize::try_from(limit).unwrap()));
    for event in found.into_iter().take(limit) {
        client.send(json!(["EVENT", message[1], event])).await;
    }
    client.send(json!(["EOSE", message[1]])).await;
}

pub fn as_json(events: &[Event]) -> Vec<Value> {
    events.iter().map(|event| serde_json::to_value(event).unwrap()).collect()
}

/// A pause that a script takes; scripts are relays, not tests.
pub async fn pause(duration: Duration) {
    let _time = tokio::time::timeout(duration, std::future::pending::<()>()).await;
}
