//! The document of a relay on the stand-in: merge and validation.

use nostr::key::{PublicKey, SecretKey};
use serde_json::Value;

/// Merges `patch` into `target` as zooid does: objects merge key by key, null deletes a key, and
/// any other value replaces.
pub(super) fn merge(target: &mut Value, patch: Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() {
                    target.remove(&key);
                } else {
                    merge(target.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => *target = without_nulls(patch),
    }
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => {
            let kept = fields.into_iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key, without_nulls(value))).collect())
        }
        value => value,
    }
}

/// Returns the first rule that a document violates, in zooid's words.
pub(super) fn problem(document: &Value) -> Option<&'static str> {
    let text =
        |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/host").is_empty() {
        return Some("host is required");
    }
    if !is_identifier(text("/schema")) {
        return Some("schema is required and must match ^[a-z_][a-z0-9_]*$");
    }
    if SecretKey::from_hex(text("/secret")).is_err() {
        return Some("invalid secret");
    }
    if PublicKey::from_hex(text("/info/pubkey")).is_err() {
        return Some("invalid info.pubkey");
    }
    match text("/blossom/adapter") {
        "" | "local" => None,
        "s3" => ["bucket", "region", "access_key", "secret_key"]
            .iter()
            .any(|key| text(&format!("/blossom/s3/{key}")).is_empty())
            .then_some("blossom s3 needs bucket, region, access_key and secret_key"),
        _ => Some("unknown blossom adapter"),
    }
}

fn is_identifier(text: &str) -> bool {
    let rest = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
    text.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
        && text.bytes().all(rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_patch_merges_deeply_and_null_deletes() {
        let mut document = json!({ "a": { "b": 1, "c": 2 }, "d": [1] });
        merge(&mut document, json!({ "a": { "b": null, "e": { "f": null, "g": 3 } }, "d": [2] }));
        assert_eq!(document, json!({ "a": { "c": 2, "e": { "g": 3 } }, "d": [2] }));
    }
}
