//! One server that plays many empty relays.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use futures_util::{SinkExt, StreamExt};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// How the relays answer a reconciliation (NIP-77).
#[derive(Debug, Clone, Copy)]
pub enum Nip77 {
    Refused,
    InStep,
}

/// The frames and the bytes of their payloads, and the connections, that the relays have seen.
#[derive(Debug, Default)]
pub struct Traffic {
    pub connections: AtomicU64,
    pub frames_in: AtomicU64,
    pub frames_out: AtomicU64,
    pub bytes_in: AtomicU64,
    pub bytes_out: AtomicU64,
}

impl Traffic {
    /// Returns connections, frames received and sent, and bytes received and sent.
    pub fn counts(&self) -> [u64; 5] {
        let Self { connections, frames_in, frames_out, bytes_in, bytes_out } = self;
        [connections, frames_in, frames_out, bytes_in, bytes_out].map(|count| count.load(Relaxed))
    }
}

/// Many empty relays at one port, by path.
pub struct Many {
    base: String,
    pub traffic: Arc<Traffic>,
}

impl Many {
    pub async fn start(count: usize, nip77: Nip77) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let base = format!("ws://{}", listener.local_addr().unwrap());
        println!("{count} empty relays listen at {base}");
        let traffic = Arc::<Traffic>::default();
        let seen = traffic.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(answer(stream, nip77, seen.clone()));
            }
        });
        Self { base, traffic }
    }

    pub fn url(&self, number: usize) -> String {
        format!("{}/{number}", self.base)
    }
}

/// Answers each request with EOSE.
async fn answer(stream: TcpStream, nip77: Nip77, traffic: Arc<Traffic>) {
    let Ok(mut socket) = tokio_tungstenite::accept_async(stream).await else { return };
    traffic.connections.fetch_add(1, Relaxed);
    while let Some(Ok(message)) = socket.next().await {
        traffic.frames_in.fetch_add(1, Relaxed);
        traffic.bytes_in.fetch_add(message.len() as u64, Relaxed);
        let text = message.to_text().unwrap_or_default();
        let Ok(message) = serde_json::from_str::<Value>(text) else { continue };
        let answer = match (message[0].as_str(), nip77) {
            (Some("REQ"), _) => json!(["EOSE", message[1]]),
            // The version of the protocol, and no range that differs.
            (Some("NEG-OPEN"), Nip77::InStep) => json!(["NEG-MSG", message[1], "61"]),
            (Some("NEG-OPEN"), Nip77::Refused) => {
                json!(["NEG-ERR", message[1], "error: not supported"])
            }
            _ => continue,
        }
        .to_string();
        traffic.frames_out.fetch_add(1, Relaxed);
        traffic.bytes_out.fetch_add(answer.len() as u64, Relaxed);
        if socket.send(Message::text(answer)).await.is_err() {
            return;
        }
    }
}
