//! Exact texts: U+0000 is valid in an event, and PostgreSQL's `text` and `jsonb` cannot hold it. The
//! tags and the content of an event that contains it are stored as `[{"exact": HEX, "tags": TAGS}]` in the column
//! `tags`: the bytes of the JSON text `[tags, content]`, and the tags that a filter can match (`plain_tags` in the
//! schema). The column `content` is then empty.
//!
//! A lone surrogate (`\ud800` in JSON) is different: it has no form in UTF-8, so the event has no
//! canonical form that could be hashed (NIP-01), and is malformed.

use std::borrow::Cow;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::Event;

/// The prefix of a key's `d` tag that is stored as a hash.
const HASHED: &str = "\u{1}sha256:";

/// Returns the columns `tags` and `content` of an event.
pub(super) fn columns(event: &Event) -> (Value, String) {
    let has_nul = |text: &String| text.contains('\0');
    // The serialisation of strings cannot fail.
    if has_nul(&event.content) || event.tags.iter().flatten().any(has_nul) {
        let exact = serde_json::to_vec(&(&event.tags, &event.content)).unwrap_or_default();
        (json!([{ "exact": hex::encode(exact), "tags": matchable(&event.tags) }]), String::new())
    } else {
        (serde_json::to_value(&event.tags).unwrap_or_default(), event.content.clone())
    }
}

/// Returns name and value of the tags with a single letter as their name. PostgreSQL would have to parse all of the event
/// to find them.
fn matchable(tags: &[Vec<String>]) -> Vec<[&str; 2]> {
    let pairs = tags.iter().filter_map(|tag| Some([tag.first()?.as_str(), tag.get(1)?.as_str()]));
    let can_match = |[name, value]: &[&str; 2]| {
        name.len() == 1
            && name.chars().all(|letter| letter.is_ascii_alphabetic())
            && !value.contains('\0')
    };
    pairs.filter(can_match).collect()
}

/// Returns the tags and the content of an event from its columns.
pub(super) fn read(tags: Value, content: String) -> (Vec<Vec<String>>, String) {
    let exact = tags.pointer("/0/exact").and_then(Value::as_str);
    let exact = exact.and_then(|text| hex::decode(text).ok());
    match exact.and_then(|bytes| serde_json::from_slice(&bytes).ok()) {
        Some(exact) => exact,
        None => (serde_json::from_value(tags).unwrap_or_default(), content),
    }
}

/// Returns the `d` tag as keys store it. Two `d` tags are equal if their stored forms are.
pub(super) fn key(d_tag: &str) -> Cow<'_, str> {
    if d_tag.contains('\0') || d_tag.starts_with(HASHED) {
        Cow::Owned(format!("{HASHED}{}", hex::encode(Sha256::digest(d_tag))))
    } else {
        Cow::Borrowed(d_tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_d_tags_have_different_keys() {
        let hashed = key("\0").into_owned();
        let tags = ["", "a", "\0", "a\0", "\0a", hashed.as_str(), HASHED];
        for (place, one) in tags.iter().enumerate() {
            assert!(!key(one).contains('\0'));
            for other in &tags[..place] {
                assert_ne!(key(one), key(other), "{one:?} {other:?}");
            }
        }
    }
}
