//! The document of a relay on the stand-in: reading, merge and validation, in zooid's words.

use nostr::key::{PublicKey, SecretKey};
use serde_json::{Value, json};

use super::fields::DOCUMENT;

/// Returns the document that a POST or PUT asks for.
pub(super) fn whole(body: &[u8]) -> Result<Value, String> {
    let sent: Value = serde_json::from_slice(body).map_err(|error| invalid_json(&error))?;
    let document =
        DOCUMENT.read(&sent, "").map_err(|error| format!("invalid json config: {error}"))?;
    problem(&document).map_or(Ok(document), Err)
}

/// Returns the document that a PATCH makes of the present one.
pub(super) fn patched(present: &Value, body: &[u8]) -> Result<Value, String> {
    let sent: Value = serde_json::from_slice(body).map_err(|error| invalid_json(&error))?;
    let patch = match sent {
        Value::Null => json!({}),
        Value::Object(_) => DOCUMENT.with_known_keys(sent),
        // Go names the type of the map into which it reads a patch.
        other => return Err(DOCUMENT.read(&other, "").err().unwrap_or_default()),
    };
    let mut merged = present.clone();
    merge(&mut merged, patch);
    let document = DOCUMENT.read(&merged, "")?;
    problem(&document).map_or(Ok(document), Err)
}

fn invalid_json(error: &serde_json::Error) -> String {
    format!("invalid json config: {error}")
}

/// Merges `patch` into `target` as zooid does: objects merge key by key, null deletes a key, and
/// any other value replaces.
fn merge(target: &mut Value, patch: Value) {
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
        (target, patch) => *target = patch,
    }
}

/// Returns the first rule that a document violates.
fn problem(document: &Value) -> Option<String> {
    let text =
        |pointer: &str| document.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    if text("/host").is_empty() {
        return Some("host is required".to_owned());
    }
    if text("/schema").is_empty() {
        return Some("schema is required".to_owned());
    }
    if !is_identifier(text("/schema")) {
        let words = "schema must contain only lowercase letters, numbers, and underscores";
        return Some(words.to_owned());
    }
    if let Err(error) = SecretKey::from_hex(text("/secret")) {
        return Some(format!("invalid secret key: {error}"));
    }
    if let Err(error) = PublicKey::from_hex(text("/info/pubkey")) {
        return Some(format!("invalid info.pubkey: {error}"));
    }
    match text("/blossom/adapter") {
        "" | "local" => None,
        "s3" => ["region", "bucket", "access_key", "secret_key"]
            .iter()
            .find(|key| text(&format!("/blossom/s3/{key}")).is_empty())
            .map(|key| format!("blossom.s3.{key} is required when blossom.adapter is s3")),
        _ => Some("invalid blossom adapter".to_owned()),
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

    fn document() -> Value {
        json!({
            "host": "a.test", "schema": "a", "secret": "01".repeat(32),
            "info": { "name": "A", "pubkey": "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798" },
        })
    }

    fn with(pointer: &str, value: Value) -> Vec<u8> {
        let mut document = document();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        document.pointer_mut(parent).unwrap()[key] = value;
        document.to_string().into_bytes()
    }

    #[test]
    fn a_patch_merges_deeply_and_null_deletes() {
        let present =
            whole(&with("/livekit", json!({ "api_key": "k", "api_secret": "s" }))).unwrap();
        let patch = br#"{"livekit": {"api_key": null}, "Info": {"NAME": "B"}, "unknown": 1}"#;
        let merged = patched(&present, patch).unwrap();
        let livekit = json!({ "server_url": "", "api_key": "", "api_secret": "s" });
        assert_eq!((&merged["livekit"], &merged["info"]["name"]), (&livekit, &json!("B")));
        assert_eq!((&merged["secret"], merged.get("unknown")), (&present["secret"], None));
    }

    #[test]
    fn null_patches_nothing_and_posts_nothing() {
        let present = whole(document().to_string().as_bytes()).unwrap();
        assert_eq!(patched(&present, b"null").unwrap(), present);
        assert_eq!(whole(b"null").unwrap_err(), "host is required");
    }

    #[test]
    fn each_rule_has_its_words() {
        for (pointer, value, words) in [
            ("/host", json!(""), "host is required"),
            ("/schema", json!(""), "schema is required"),
            (
                "/schema",
                json!("A"),
                "schema must contain only lowercase letters, numbers, and underscores",
            ),
            ("/secret", json!("zz"), "invalid secret key: "),
            ("/info/pubkey", json!(""), "invalid info.pubkey: "),
            ("/blossom", json!({ "adapter": "tape" }), "invalid blossom adapter"),
            (
                "/blossom",
                json!({ "enabled": false, "adapter": "s3", "s3": { "region": "eu" } }),
                "blossom.s3.bucket is required when blossom.adapter is s3",
            ),
            ("/host", json!(1), "invalid json config: json: cannot unmarshal number"),
        ] {
            let error = whole(&with(pointer, value)).unwrap_err();
            assert!(error.starts_with(words), "{error}");
        }
        assert!(whole(b"{").unwrap_err().starts_with("invalid json config: "));
        let bare = patched(&document(), br#"{"host": 1}"#).unwrap_err();
        assert!(bare.starts_with("json: cannot unmarshal number"), "{bare}");
    }
}
