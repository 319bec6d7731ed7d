//! The NIP-11 document of an upstream, read at most once a day. It is advice only: some relays list
//! features that they refuse.

use std::time::Duration;

use reqwest::{Client, Url, header::ACCEPT};
use serde_json::{Map, Value, json};
use sqlx::PgPool;
use tender_jobs::mirror::upstream::{self, Upstream};

use super::address;

/// The longest duration of a read.
const WITHIN: Duration = Duration::from_secs(5);
/// The longest document, in bytes.
const MAX_BYTES: usize = 64 * 1024;

/// Reads the document if a day has passed since the last read, even if that read failed. Errors are
/// logged. `allow_private` allows every upstream an address that is not public.
pub(crate) async fn refresh(db: &PgPool, upstream: &Upstream, allow_private: bool) {
    match upstream::wants_information(db, upstream.id).await {
        Ok(true) => {}
        Ok(false) => return,
        Err(error) => {
            return tracing::debug!(%error, "could not read whether a NIP-11 document is due");
        }
    }
    let read = read(&upstream.url, upstream.allow_private || allow_private);
    let read = tokio::time::timeout(WITHIN, read).await.unwrap_or(None);
    if let Err(error) = upstream::note_information(db, upstream.id, read.as_ref()).await {
        tracing::debug!(%error, "could not store a NIP-11 document");
    }
}

/// Connects to the addresses that were checked, without redirects and proxies, because either could
/// lead elsewhere.
async fn read(url: &str, allow_private: bool) -> Option<Value> {
    let url = url.strip_prefix("ws")?;
    let url: Url = format!("http{url}").parse().ok()?;
    let addresses = address::resolve(&url, allow_private).await.ok()?;
    let client = Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .resolve_to_addrs(url.host_str()?, &addresses)
        .build()
        .ok()?;
    let request = client.get(url).header(ACCEPT, "application/nostr+json");
    let mut response = request.send().await.ok()?.error_for_status().ok()?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.ok()? {
        body.extend_from_slice(&chunk);
        if body.len() > MAX_BYTES {
            return None;
        }
    }
    kept(&serde_json::from_slice(&body).ok()?)
}

/// Returns the fields of a document that are used or shown, with bounded texts; `None` if it is not
/// an object.
pub fn kept(document: &Value) -> Option<Value> {
    let text = |key: &str| {
        let text: String = document[key].as_str()?.chars().take(200).collect();
        Some(json!(text))
    };
    let number = |key: &str| document["limitation"][key].as_u64().map(|number| json!(number));
    let nips = document["supported_nips"]
        .as_array()
        .map(|nips| json!(nips.iter().filter_map(Value::as_u64).take(200).collect::<Vec<_>>()));
    document.as_object()?;
    let found = [
        ("name", text("name")),
        ("software", text("software")),
        ("version", text("version")),
        ("supported_nips", nips),
        ("max_limit", number("max_limit")),
        ("max_subscriptions", number("max_subscriptions")),
        ("max_message_length", number("max_message_length")),
        ("max_content_length", number("max_content_length")),
        ("max_event_tags", number("max_event_tags")),
    ];
    let kept = found.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
    Some(Value::Object(kept.collect::<Map<_, _>>()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_used_is_kept() {
        let document = json!({
            "name": "x".repeat(500), "supported_nips": [1, "2", 77], "junk": {"a": 1},
            "limitation": {"max_limit": 300, "max_subscriptions": "many"},
        });
        let kept = kept(&document).expect("an object");
        assert_eq!(kept["name"].as_str().map(str::len), Some(200));
        assert_eq!(kept["supported_nips"], json!([1, 77]));
        assert_eq!((&kept["max_limit"], &kept["junk"]), (&json!(300), &Value::Null));
        assert_eq!(super::kept(&json!([])), None);
    }
}
