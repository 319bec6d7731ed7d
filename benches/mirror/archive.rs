//! A relay that gives whatever it holds, with every version and every deleted event: the fastest answers to requests by
//! id, by time, and by negentropy, so that the benchmark measures those who ask.

use std::{collections::HashMap, sync::Arc};

use futures_util::{SinkExt, StreamExt};
use negentropy::{Id, Negentropy, NegentropyStorageVector};
use nostr::event::Event;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// The largest frame of a reconciliation, in bytes: as of strfry.
const FRAME: u64 = 500_000;
/// The most events of a page: as of strfry.
const PAGE: usize = 500;

struct Stored {
    at: i64,
    id: [u8; 32],
    json: String,
}

/// The events, newest first.
struct Events {
    all: Vec<Stored>,
    by_id: HashMap<String, usize>,
}

/// A relay of events that never change.
#[derive(Clone)]
pub(crate) struct Archive(Arc<Events>);

type Open = HashMap<String, Negentropy<'static, NegentropyStorageVector>>;

impl Archive {
    /// `events` are in the order of time, newest first.
    pub(crate) fn of(events: &[Event]) -> Self {
        let stored = |event: &Event| Stored {
            at: i64::try_from(event.created_at.as_secs()).unwrap(),
            id: event.id.to_bytes(),
            json: serde_json::to_string(event).unwrap(),
        };
        let by_id = events.iter().enumerate().map(|(index, event)| (event.id.to_hex(), index));
        let by_id = by_id.collect();
        Self(Arc::new(Events { all: events.iter().map(stored).collect(), by_id }))
    }

    /// Serves the events at a port of their own, until the benchmark ends. Returns the address.
    pub(crate) async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        let archive = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                stream.set_nodelay(true).unwrap();
                tokio::spawn(archive.clone().talk(stream));
            }
        });
        url
    }

    async fn talk(self, stream: TcpStream) {
        // A request for the NIP-11 document finds its connection closed.
        let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
        let mut open = Open::new();
        while let Some(Ok(message)) = socket.next().await {
            let Ok(text) = message.to_text() else { continue };
            let Ok(message) = serde_json::from_str::<Value>(text) else { continue };
            for answer in self.0.answer(&message, &mut open) {
                if socket.feed(Message::text(answer)).await.is_err() {
                    return;
                }
            }
            if socket.flush().await.is_err() {
                return;
            }
        }
    }
}

impl Events {
    fn answer(&self, message: &Value, open: &mut Open) -> Vec<String> {
        let id = message[1].as_str().unwrap_or_default();
        match message[0].as_str() {
            Some("REQ") => self.page(&message[1], &message[2]),
            Some("NEG-OPEN") => {
                let theirs = Negentropy::owned(self.set(&message[2]), FRAME).unwrap();
                let theirs = open.entry(id.to_owned()).insert_entry(theirs).into_mut();
                vec![frame(id, theirs, &message[3])]
            }
            Some("NEG-MSG") => {
                open.get_mut(id).map(|theirs| frame(id, theirs, &message[2])).into_iter().collect()
            }
            Some("NEG-CLOSE") => {
                open.remove(id);
                Vec::new()
            }
            _ => Vec::new(),
        }
    }

    /// Returns the events within `since` and `until`.
    fn within(&self, filter: &Value) -> &[Stored] {
        let (since, until) = (filter["since"].as_i64(), filter["until"].as_i64());
        let from = self.all.partition_point(|event| until.is_some_and(|until| event.at > until));
        let to = self.all.partition_point(|event| since.is_none_or(|since| event.at >= since));
        &self.all[from..to.max(from)]
    }

    fn page(&self, id: &Value, filter: &Value) -> Vec<String> {
        let event = |event: &Stored| format!(r#"["EVENT",{id},{}]"#, event.json);
        let limit = filter["limit"].as_u64().map_or(PAGE, |limit| usize::try_from(limit).unwrap());
        let mut answers: Vec<String> = match filter["ids"].as_array() {
            Some(ids) => {
                let index = |id: &Value| self.by_id.get(id.as_str()?).copied();
                ids.iter().filter_map(index).map(|index| event(&self.all[index])).collect()
            }
            None => self.within(filter).iter().take(limit.min(PAGE)).map(event).collect(),
        };
        answers.push(json!(["EOSE", id]).to_string());
        answers
    }

    fn set(&self, filter: &Value) -> NegentropyStorageVector {
        let mut set = NegentropyStorageVector::new();
        for event in self.within(filter) {
            set.insert(u64::try_from(event.at).unwrap(), Id::from_byte_array(event.id)).unwrap();
        }
        set.seal().unwrap();
        set
    }
}

fn frame(
    id: &str,
    theirs: &mut Negentropy<'static, NegentropyStorageVector>,
    query: &Value,
) -> String {
    let query = hex::decode(query.as_str().unwrap()).unwrap();
    json!(["NEG-MSG", id, hex::encode(theirs.reconcile(&query).unwrap())]).to_string()
}
