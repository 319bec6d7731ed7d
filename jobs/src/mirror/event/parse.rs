//! The first check of a received event: its shape. It needs neither a hash nor the database.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Event, EventId, Reason};

/// The longest `d` tag that is stored, in bytes.
const MAX_D_TAG: usize = 1024;

/// The limits of a received event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The largest size as JSON, in bytes.
    pub bytes: usize,
    /// The largest number of tags.
    pub tags: usize,
}

/// A rejected event: the reason, and the event's identity if it is readable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unusable {
    /// Why the event was rejected.
    pub reason: Reason,
    /// The claimed id and time; `None` if one of them is malformed.
    pub claims: Option<(EventId, i64)>,
}

#[derive(Deserialize)]
struct Fields<'a> {
    #[serde(borrow)]
    id: &'a RawValue,
    #[serde(borrow)]
    pubkey: &'a RawValue,
    #[serde(borrow)]
    created_at: &'a RawValue,
    #[serde(borrow)]
    kind: &'a RawValue,
    #[serde(borrow)]
    tags: &'a RawValue,
    #[serde(borrow)]
    content: &'a RawValue,
    #[serde(borrow)]
    sig: &'a RawValue,
}

/// Parses an event. Fields other than the seven of NIP-01 are dropped.
///
/// # Errors
/// [`Unusable`] has the reason, and the claimed id, so that the event is not fetched from the same
/// relay again.
pub fn parse(json: &str, limits: Limits) -> Result<Event, Unusable> {
    let unknown = |reason| Unusable { reason, claims: None };
    let fields: Fields = serde_json::from_str(json).map_err(|_| unknown(Reason::Malformed))?;
    let id = text(fields.id).and_then(|text| EventId::parse(&text));
    let created_at = serde_json::from_str(fields.created_at.get()).ok();
    let created_at = created_at.filter(|at| (0..=1 << 53).contains(at));
    let claims = id.zip(created_at);
    let unusable = |reason| Unusable { reason, claims };
    if json.len() > limits.bytes {
        return Err(unusable(Reason::TooLarge));
    }
    let event = || -> Option<Event> {
        Some(Event {
            id: id?,
            pubkey: bytes(&text(fields.pubkey)?)?,
            created_at: created_at?,
            kind: serde_json::from_str(fields.kind.get()).ok()?,
            tags: serde_json::from_str(fields.tags.get()).ok()?,
            content: text(fields.content)?,
            sig: bytes(&text(fields.sig)?)?,
        })
    };
    let event = event().filter(|event| event.tags.iter().all(|tag| !tag.is_empty()));
    let event = event.ok_or_else(|| unusable(Reason::Malformed))?;
    match problem(&event, limits) {
        Some(reason) => Err(unusable(reason)),
        None => Ok(event),
    }
}

fn problem(event: &Event, limits: Limits) -> Option<Reason> {
    let has_nul = |text: &String| text.contains('\0');
    if event.tags.len() > limits.tags || event.d_tag().is_some_and(|d| d.len() > MAX_D_TAG) {
        return Some(Reason::TooManyTags);
    }
    (has_nul(&event.content) || event.tags.iter().flatten().any(has_nul))
        .then_some(Reason::Unstorable)
}

fn text(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// Parses lower-case hex of exactly `N` bytes; `None` if malformed.
pub(super) fn bytes<const N: usize>(text: &str) -> Option<[u8; N]> {
    let is_lower = text.bytes().all(|byte| !byte.is_ascii_uppercase());
    let mut bytes = [0; N];
    (is_lower && hex::decode_to_slice(text, &mut bytes).is_ok()).then_some(bytes)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const LIMITS: Limits = Limits { bytes: 2000, tags: 3 };

    fn event() -> Value {
        json!({
            "id": "a".repeat(64), "pubkey": "b".repeat(64), "created_at": 1_700_000_000, "kind": 1,
            "tags": [["t", "x"]], "content": "<&>/ \u{e9}", "sig": "c".repeat(128), "seen": true,
        })
    }

    fn with(key: &str, value: Value) -> String {
        let mut event = event();
        event[key] = value;
        event.to_string()
    }

    fn reason(json: &str) -> Reason {
        parse(json, LIMITS).expect_err("refused").reason
    }

    #[test]
    fn a_well_formed_event_is_read_and_goes_out_without_what_we_do_not_know() {
        let read = parse(&event().to_string(), LIMITS).expect("an event");
        let mut wanted = event();
        wanted.as_object_mut().expect("an object").remove("seen");
        assert_eq!(serde_json::to_value(&read).expect("JSON"), wanted);
        assert!(read.canonical().ends_with(r#","<&>/ é"]"#), "{}", read.canonical());
    }

    #[test]
    fn each_fault_has_its_reason() {
        assert_eq!(reason("[]"), Reason::Malformed);
        for (key, value) in [
            ("id", json!("A".repeat(64))),
            ("pubkey", json!("b".repeat(63))),
            ("sig", json!(1)),
            ("created_at", json!(-1)),
            ("created_at", json!(1.5)),
            ("created_at", json!((1_u64 << 53) + 1)),
            ("kind", json!(65536)),
            ("tags", json!([[]])),
            ("tags", json!([["a", 1]])),
            ("content", Value::Null),
        ] {
            assert_eq!(reason(&with(key, value.clone())), Reason::Malformed, "{key}: {value}");
        }
        assert_eq!(reason(&with("content", json!("x".repeat(2000)))), Reason::TooLarge);
        assert_eq!(reason(&with("content", json!("a\u{0}"))), Reason::Unstorable);
        assert_eq!(reason(&with("tags", json!([["a", "\u{0}"]]))), Reason::Unstorable);
        let tags = json!([["a"], ["b"], ["c"], ["d"]]);
        assert_eq!(reason(&with("tags", tags)), Reason::TooManyTags);
        let mut missing = event();
        missing.as_object_mut().expect("an object").remove("tags");
        assert_eq!(reason(&missing.to_string()), Reason::Malformed);
    }

    #[test]
    fn what_is_refused_says_who_it_claims_to_be() {
        let unusable = parse(&with("content", json!("a\u{0}")), LIMITS).expect_err("refused");
        assert_eq!(unusable.claims, Some((EventId([0xaa; 32]), 1_700_000_000)));
        let unusable = parse(&with("id", json!("A".repeat(64))), LIMITS).expect_err("refused");
        assert_eq!(unusable.claims, None);
    }
}
