//! Two relays that nobody wishes for: one never answers, and one lies.

use futures_util::SinkExt;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::relays::{listen, text};

/// The events of a lying answer.
const LIES: usize = 50;

/// Starts a relay that accepts connections, and never says anything.
pub(crate) async fn silent() -> anyhow::Result<String> {
    listen(|mut socket| async move { while text(&mut socket).await.is_some() {} }).await
}

/// Starts a relay that answers every request with events that nobody requested or signed.
pub(crate) async fn liar() -> anyhow::Result<String> {
    listen(|mut socket| async move {
        while let Some(text) = text(&mut socket).await {
            let Ok(message) = serde_json::from_str::<Value>(&text) else { continue };
            if message[0] != "REQ" {
                continue;
            }
            for number in 0..LIES {
                let lie = json!(["EVENT", message[1], lie(number)]).to_string();
                if socket.send(Message::text(lie)).await.is_err() {
                    return;
                }
            }
            let end = json!(["EOSE", message[1]]).to_string();
            let _gone = socket.send(Message::text(end)).await;
        }
    })
    .await
}

/// An event with an invented id and signature.
fn lie(number: usize) -> Value {
    json!({
        "id": format!("{number:064x}"), "pubkey": "a".repeat(64), "created_at": 1_700_000_000,
        "kind": 1621, "tags": [], "content": "a lie", "sig": "b".repeat(128),
    })
}
