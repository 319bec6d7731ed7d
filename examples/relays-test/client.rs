//! A websocket client of its own, which knows nothing of Tender: it publishes events and asks for
//! events by id.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use anyhow::{Context, bail};
use futures_util::{SinkExt, StreamExt};
use nostr::event::Event;
use serde_json::{Value, json};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

/// The longest wait for a message of the relay.
const SILENCE: Duration = Duration::from_secs(30);
/// The events that are sent before their answers are read.
const IN_FLIGHT: usize = 50;
/// The ids of one REQ.
const IDS: usize = 100;

/// The connection of a client.
pub(crate) struct Client {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
}

/// What a relay answered to published events.
#[derive(Debug, Default)]
pub(crate) struct Published {
    pub(crate) accepted: HashSet<String>,
    /// The number of refused events by reason.
    pub(crate) refused: BTreeMap<String, usize>,
}

impl Client {
    pub(crate) async fn connect(url: &str) -> anyhow::Result<Self> {
        let (socket, _) = tokio_tungstenite::connect_async(url)
            .await
            .with_context(|| format!("cannot connect to {url}"))?;
        Ok(Self { socket })
    }

    /// Publishes events and waits for every answer.
    pub(crate) async fn publish(&mut self, events: &[Event]) -> anyhow::Result<Published> {
        let mut published = Published::default();
        for part in events.chunks(IN_FLIGHT) {
            for event in part {
                self.send(&json!(["EVENT", event])).await?;
            }
            let mut open: HashSet<String> = part.iter().map(|event| event.id.to_hex()).collect();
            while !open.is_empty() {
                let message = self.next().await?;
                let id = message[1].as_str().unwrap_or_default();
                if message[0] != "OK" || !open.remove(id) {
                    continue;
                }
                if message[2] == true {
                    published.accepted.insert(id.to_owned());
                } else {
                    let reason = message[3].as_str().unwrap_or_default().chars().take(80).collect();
                    *published.refused.entry(reason).or_default() += 1;
                }
            }
        }
        Ok(published)
    }

    /// Returns those of the ids that the relay serves.
    pub(crate) async fn held<'a>(
        &mut self,
        ids: impl IntoIterator<Item = &'a String>,
    ) -> anyhow::Result<HashSet<String>> {
        let ids: Vec<&String> = ids.into_iter().collect();
        let mut held = HashSet::new();
        for (index, part) in ids.chunks(IDS).enumerate() {
            let name = format!("ids{index}");
            self.send(&json!(["REQ", name, { "ids": part, "limit": part.len() }])).await?;
            loop {
                let message = self.next().await?;
                if message[1] != name.as_str() {
                    continue;
                }
                match message[0].as_str() {
                    Some("EVENT") => held.extend(message[2]["id"].as_str().map(str::to_owned)),
                    Some("EOSE") => break,
                    Some("CLOSED") => bail!("the relay closed a request: {message}"),
                    _ => {}
                }
            }
            self.send(&json!(["CLOSE", name])).await?;
        }
        Ok(held)
    }

    async fn send(&mut self, message: &Value) -> anyhow::Result<()> {
        Ok(self.socket.send(Message::text(message.to_string())).await?)
    }

    async fn next(&mut self) -> anyhow::Result<Value> {
        loop {
            let message = timeout(SILENCE, self.socket.next())
                .await
                .context("the relay sent nothing for 30 s")?
                .context("the relay closed the connection")??;
            if let Message::Text(text) = message {
                return Ok(serde_json::from_str(&text)?);
            }
        }
    }
}
