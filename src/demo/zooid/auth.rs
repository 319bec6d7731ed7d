//! The authentication of the stand-in. The checks have the same order as in zooid.

use axum::http::{HeaderMap, Method, header::AUTHORIZATION};
use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{Event, Kind},
    key::PublicKey,
};

/// The status and the message of a refusal.
pub(super) type Refusal = (u16, &'static str);

/// Returns the key of the caller if its event is signed for this request and the key is on the
/// whitelist.
pub(super) fn check(
    headers: &HeaderMap,
    method: &Method,
    path: &str,
    whitelist: &[PublicKey],
) -> Result<PublicKey, Refusal> {
    let header = headers.get(AUTHORIZATION).ok_or((401, "missing authorization header"))?;
    let header = header.to_str().map_err(|_| (401, "invalid authorization header"))?;
    let (scheme, token) = header.split_once(' ').ok_or((401, "invalid authorization header"))?;
    if !scheme.eq_ignore_ascii_case("nostr") {
        return Err((401, "invalid authorization scheme"));
    }
    let json = STANDARD.decode(token).map_err(|_| (401, "invalid base64"))?;
    let event: Event = serde_json::from_slice(&json).map_err(|_| (401, "invalid event"))?;
    if event.kind != Kind::HttpAuth {
        return Err((401, "invalid event kind"));
    }
    event.verify().map_err(|_| (401, "invalid signature"))?;
    if tag(&event, "u") != Some(&url(headers, path)) {
        return Err((401, "invalid u tag"));
    }
    if !tag(&event, "method").is_some_and(|tag| tag.eq_ignore_ascii_case(method.as_str())) {
        return Err((401, "invalid method tag"));
    }
    if !whitelist.contains(&event.pubkey) {
        return Err((403, "pubkey not in whitelist"));
    }
    Ok(event.pubkey)
}

fn tag<'a>(event: &'a Event, name: &str) -> Option<&'a str> {
    event.tags.iter().find(|tag| tag.kind() == name)?.content()
}

/// Returns the URL as zooid computes it: the `Host` header with its port, and the path without the
/// query.
fn url(headers: &HeaderMap, path: &str) -> String {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let scheme = if text("x-forwarded-proto") == Some("https") { "https" } else { "http" };
    format!("{scheme}://{}{path}", text("host").unwrap_or_default())
}
