//! The authentication of the stand-in. The checks have zooid's order and zooid's words.

use axum::http::{HeaderMap, Method, header::AUTHORIZATION};
use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{Event, EventId, Kind, Tag, Tags},
    key::PublicKey,
    types::Timestamp,
};
use serde::Deserialize;
use serde_json::json;

use super::route;

/// The largest difference between an event's time and the server's, in seconds.
const WINDOW: i64 = 60;

/// The status and the message of a refusal.
pub(super) type Refusal = (u16, String);

/// An event as Go reads it: a missing field has its zero value.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Signed {
    pubkey: String,
    created_at: i64,
    kind: u16,
    tags: Vec<Vec<String>>,
    content: String,
    sig: String,
}

/// Checks that a request is signed by a key on the whitelist. `now` is the server's Unix time.
pub(super) fn check(
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    whitelist: &[String],
    now: i64,
) -> Result<(), Refusal> {
    let event = authenticate(headers, method, path, now).map_err(|words| (401, words))?;
    if !whitelist.contains(&event.pubkey) {
        return Err((403, "pubkey not in whitelist".to_owned()));
    }
    Ok(())
}

fn authenticate(
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    now: i64,
) -> Result<Signed, String> {
    let event = read(headers)?;
    if Kind::from(event.kind) != Kind::HttpAuth {
        return Err(format!("invalid event kind: expected 27235, got {}", event.kind));
    }
    if !event.is_genuine() {
        return Err("invalid event signature".to_owned());
    }
    if (now - event.created_at).abs() > WINDOW {
        return Err("event is outside the allowed time window".to_owned());
    }
    let url = url(headers, path);
    if !event.tag("u").any(|tag| route::decoded(tag) == url) {
        return Err("event missing or invalid u tag".to_owned());
    }
    if !event.tag("method").any(|tag| tag == method.as_str()) {
        return Err("event missing or invalid method tag".to_owned());
    }
    Ok(event)
}

fn read(headers: &HeaderMap) -> Result<Signed, String> {
    let header = headers.get(AUTHORIZATION).ok_or("missing authorization header")?;
    let format = || "invalid authorization header format".to_owned();
    let header = header.to_str().map_err(|_| format())?;
    let (scheme, token) = header.split_once(' ').ok_or_else(format)?;
    if !scheme.eq_ignore_ascii_case("nostr") {
        return Err(format());
    }
    let json =
        STANDARD.decode(token).map_err(|error| format!("invalid base64 encoding: {error}"))?;
    serde_json::from_slice(&json).map_err(|error| format!("invalid event json: {error}"))
}

impl Signed {
    /// Whether the signature is right for the content. Like zooid, it does not compare the id.
    fn is_genuine(&self) -> bool {
        let Ok(pubkey) = PublicKey::from_hex(&self.pubkey) else { return false };
        let Ok(created_at) = u64::try_from(self.created_at) else { return false };
        let Ok(tags) = self.tags.iter().map(Tag::parse).collect::<Result<Vec<_>, _>>() else {
            return false;
        };
        let (created_at, kind) = (Timestamp::from(created_at), Kind::from(self.kind));
        let id =
            EventId::compute(&pubkey, &created_at, &kind, &Tags::from_list(tags), &self.content);
        let event = json!({
            "id": id, "pubkey": self.pubkey, "created_at": self.created_at, "kind": self.kind,
            "tags": self.tags, "content": self.content, "sig": self.sig,
        });
        serde_json::from_value::<Event>(event).is_ok_and(|event| event.verify_signature())
    }

    /// Returns the values of the tags of this name.
    fn tag<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a str> {
        let named = self.tags.iter().filter(move |tag| tag.first().is_some_and(|it| it == name));
        named.filter_map(|tag| tag.get(1).map(String::as_str))
    }
}

/// Returns the URL as zooid computes it: the scheme from `X-Forwarded-Proto`, the `Host` header with its
/// port, and the decoded path without the query.
fn url(headers: &HeaderMap, path: &str) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    format!("{scheme}://{}{}", text("host").unwrap_or_default(), route::decoded(path))
}
