//! Verification of ids and signatures, on several cores.

use secp256k1::{Message, Secp256k1, VerifyOnly, XOnlyPublicKey, schnorr::Signature};
use sha2::{Digest, Sha256};
use tender_jobs::mirror::event::{Event, Reason, Refused};
use tokio::task::JoinError;

use crate::runtime::failpoint;

/// The fewest events that are worth a task.
const SMALLEST_PART: usize = 32;

/// Events by the result of their verification.
#[derive(Debug, Default)]
pub(super) struct Verified {
    pub(super) genuine: Vec<Event>,
    /// Forged events.
    pub(super) forged: Vec<Refused>,
}

/// Verifies events on so many cores. An error means that a task panicked, and some events have no result.
pub(super) async fn verify(events: Vec<Event>, cores: usize) -> Result<Verified, JoinError> {
    let size = events.len().div_ceil(cores).max(SMALLEST_PART);
    let mut parts = Vec::new();
    let mut events = events.into_iter().peekable();
    while events.peek().is_some() {
        let part: Vec<Event> = events.by_ref().take(size).collect();
        parts.push(tokio::task::spawn_blocking(move || verify_part(part)));
    }
    let mut verified = Verified::default();
    for part in parts {
        let part = part.await?;
        verified.genuine.extend(part.genuine);
        verified.forged.extend(part.forged);
    }
    Ok(verified)
}

fn verify_part(events: Vec<Event>) -> Verified {
    let curve = Secp256k1::verification_only();
    let mut verified = Verified::default();
    for event in events {
        failpoint!("mirror-verify");
        match forgery(&curve, &event) {
            None => verified.genuine.push(event),
            Some(reason) => verified.forged.push(Refused::of(&event, reason)),
        }
    }
    verified
}

/// Why the event is forged; `None` if it is genuine. Source: NIP-01, BIP-340.
fn forgery(curve: &Secp256k1<VerifyOnly>, event: &Event) -> Option<Reason> {
    if Sha256::digest(event.canonical())[..] != event.id.0 {
        return Some(Reason::WrongId);
    }
    let author = XOnlyPublicKey::from_slice(&event.pubkey);
    let signature = Signature::from_slice(&event.sig);
    let (Ok(author), Ok(signature)) = (author, signature) else {
        return Some(Reason::BadSignature);
    };
    let message = Message::from_digest(event.id.0);
    let verified = curve.verify_schnorr(&signature, message.as_ref(), &author);
    verified.is_err().then_some(Reason::BadSignature)
}
