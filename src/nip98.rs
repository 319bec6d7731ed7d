//! NIP-98: authentication by a signed event in the `Authorization` header. This room checks events
//! for a single request; `http` also accepts events that clients use for a session.

use axum::{
    body::Bytes,
    http::{HeaderMap, Method, header::AUTHORIZATION},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{Event, Kind},
    types::Timestamp,
};
use sha2::{Digest, Sha256};

/// The largest difference between our clock and a strict event's time, in seconds.
pub(crate) const STRICT_AGE: u64 = 60;
/// The longest header that is parsed, in bytes. A NIP-98 event has a few hundred.
const MAX_HEADER: usize = 16 * 1024;

/// Returns the event of a request if it is genuine, recent, and for this URL, method and body.
///
/// # Errors
/// The violated rule, worded for the caller.
pub(crate) fn strict(
    headers: &HeaderMap,
    method: &Method,
    url: &str,
    body: &Bytes,
) -> Result<Event, &'static str> {
    let event = event_of(headers)?;
    let is_for_this = event.kind == Kind::HttpAuth
        && tag(&event, "u") == Some(url)
        && tag(&event, "method").is_some_and(|m| m.eq_ignore_ascii_case(method.as_str()));
    if !is_for_this {
        return Err("the event must be of kind 27235, with this request's u and method tags");
    }
    if Timestamp::now().as_secs().abs_diff(event.created_at.as_secs()) > STRICT_AGE {
        return Err("the event is too old, or dated too far in the future");
    }
    check_payload(&event, body)?;
    event.verify().map_err(|_| "the event's id or signature is invalid")?;
    Ok(event)
}

/// Parses the event in the header. Does not check its tags, its time or its signature.
pub(crate) fn event_of(headers: &HeaderMap) -> Result<Event, &'static str> {
    let header = headers.get(AUTHORIZATION).ok_or("send `Authorization: Nostr <base64 event>`")?;
    let text = header.to_str().map_err(|_| "the Authorization header is not text")?;
    if text.len() > MAX_HEADER {
        return Err("the Authorization header is too long");
    }
    let (scheme, token) = text.split_once(' ').ok_or("the Authorization header has no token")?;
    if !scheme.eq_ignore_ascii_case("nostr") {
        return Err("the Authorization scheme must be Nostr");
    }
    let json = STANDARD.decode(token.trim()).map_err(|_| "the token is not base64")?;
    serde_json::from_slice(&json).map_err(|_| "the token is not a Nostr event")
}

/// Checks that the `payload` tag is the SHA-256 of the body. The tag is optional.
pub(crate) fn check_payload(event: &Event, body: &Bytes) -> Result<(), &'static str> {
    let Some(payload) = tag(event, "payload") else { return Ok(()) };
    let hash =
        Sha256::digest(body).iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
    if payload.eq_ignore_ascii_case(&hash) {
        Ok(())
    } else {
        Err("the payload tag is not the body's hash")
    }
}

pub(crate) fn tag<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.tags.iter().find(|tag| tag.kind() == name)?.content()
}
