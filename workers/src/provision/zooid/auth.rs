//! NIP-98: each request to zooid carries an event that signs it.

use base64::{Engine, engine::general_purpose::STANDARD};
use nostr::{
    event::{Event, EventBuilder, FinalizeUnsignedEvent, Kind, Tag, UnsignedEvent},
    key::Keys,
};
use reqwest::{Method, Url};
use sha2::{Digest, Sha256};

use super::ZooidError;

/// Returns the `Authorization` header of a request. zooid compares `u` with the URL that it receives,
/// and accepts an event for 60 s. It does not check the payload's hash, which is right nevertheless.
pub(super) fn header(
    robot: &Keys,
    method: &Method,
    url: &Url,
    body: Option<&str>,
) -> Result<String, ZooidError> {
    let payload = body.map(|body| {
        let hash = Sha256::digest(body)
            .iter()
            .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"));
        Tag::custom("payload", [hash])
    });
    let event = EventBuilder::new(Kind::HttpAuth, "")
        .tag(Tag::custom("u", [url.as_str()]))
        .tag(Tag::custom("method", [method.as_str()]))
        .tag_maybe(payload)
        .finalize_unsigned(robot.public_key());
    let json = serde_json::to_vec(&signed(event, robot)).map_err(|error| {
        ZooidError::Unreachable(format!("could not serialize the event: {error}"))
    })?;
    Ok(format!("Nostr {}", STANDARD.encode(json)))
}

/// Signs an event. `nostr` would verify the signature that it has just made, which takes longer than to make it; zooid
/// verifies it in any case.
fn signed(event: UnsignedEvent, robot: &Keys) -> Event {
    let id = event.compute_id();
    let signature = robot.sign_schnorr(id.as_bytes());
    let UnsignedEvent { pubkey, created_at, kind, tags, content, .. } = event;
    Event::new(id, pubkey, created_at, kind, tags, content, signature)
}
