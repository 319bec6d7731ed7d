//! The first check of a received event: its shape. It needs neither a hash nor the database.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Event, EventId, MAX_D_TAG, Reason, Refused, Rule, rule};

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
    /// The claimed kind, if it is readable.
    pub kind: Option<u16>,
    /// The claimed author, if it is readable.
    pub author: Option<[u8; 32]>,
    /// The value that exceeds a limit: bytes if the event is too large, or the number of tags.
    pub size: Option<i32>,
}

impl Unusable {
    /// Returns the reason for people.
    pub fn words(&self) -> String {
        match self.reason {
            Reason::IdentifierTooLong => {
                format!("its identifier (tag `d`) is longer than {MAX_D_TAG} bytes")
            }
            reason => reason.as_str().to_owned(),
        }
    }

    /// Returns what is remembered about the event; `None` if it does not say which event it is.
    pub fn refused(&self) -> Option<Refused> {
        let (id, created_at) = self.claims?;
        let Self { reason, kind, author, size, .. } = *self;
        Some(Refused { id, created_at, reason, kind, author, size })
    }
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
    let fields: Fields = serde_json::from_str(json).map_err(|_| UNKNOWN)?;
    let claimed = claimed(&fields);
    let unusable = |reason| Unusable { reason, ..claimed };
    if claimed.kind.is_some_and(|kind| rule(kind) == Rule::Ephemeral) {
        return Err(unusable(Reason::Ephemeral));
    }
    if json.len() > limits.bytes {
        return Err(Unusable {
            size: i32::try_from(json.len()).ok(),
            ..unusable(Reason::TooLarge)
        });
    }
    let event = read(&fields, &claimed).ok_or_else(|| unusable(Reason::Malformed))?;
    if event.tags.len() > limits.tags {
        let size = i32::try_from(event.tags.len()).ok();
        return Err(Unusable { size, ..unusable(Reason::TooManyTags) });
    }
    if event.d_tag().is_some_and(|d_tag| d_tag.len() > MAX_D_TAG) {
        return Err(unusable(Reason::IdentifierTooLong));
    }
    Ok(event)
}

const UNKNOWN: Unusable =
    Unusable { reason: Reason::Malformed, claims: None, kind: None, author: None, size: None };

/// Reads the fields that say which event it is.
fn claimed(fields: &Fields<'_>) -> Unusable {
    let id = text(fields.id).and_then(|text| EventId::parse(&text));
    let created_at = serde_json::from_str(fields.created_at.get()).ok();
    let created_at = created_at.filter(|at| (0..=1 << 53).contains(at));
    Unusable {
        claims: id.zip(created_at),
        kind: serde_json::from_str(fields.kind.get()).ok(),
        author: text(fields.pubkey).and_then(|text| bytes(&text)),
        ..UNKNOWN
    }
}

/// Reads the whole event; `None` if a field is malformed.
fn read(fields: &Fields<'_>, claimed: &Unusable) -> Option<Event> {
    let (id, created_at) = claimed.claims?;
    let event = Event {
        id,
        pubkey: claimed.author?,
        created_at,
        kind: claimed.kind?,
        tags: serde_json::from_str(fields.tags.get()).ok()?,
        content: text(fields.content)?,
        sig: bytes(&text(fields.sig)?)?,
    };
    event.tags.iter().all(|tag| !tag.is_empty()).then_some(event)
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
        let long = "x".repeat(2000);
        let ephemeral = with("kind", json!(20_000)).replace("<&>", &long);
        assert_eq!(reason(&ephemeral), Reason::Ephemeral, "before its size is looked at");
        let tags = json!([["a"], ["b"], ["c"], ["d"]]);
        assert_eq!(reason(&with("tags", tags)), Reason::TooManyTags);
        let named = with("tags", json!([["d", "x".repeat(MAX_D_TAG + 1)]]));
        let named = named.replace(r#""kind":1,"#, r#""kind":30617,"#);
        let long = parse(&named, Limits { bytes: 4000, ..LIMITS }).expect_err("refused");
        assert_eq!(long.reason, Reason::IdentifierTooLong);
        assert!(long.words().contains("longer than 1024 bytes"), "{}", long.words());
        let mut missing = event();
        missing.as_object_mut().expect("an object").remove("tags");
        assert_eq!(reason(&missing.to_string()), Reason::Malformed);
    }

    #[test]
    fn what_is_refused_says_who_it_claims_to_be() {
        let lone = with("content", json!("a")).replace(r#""a""#, r#""\ud800""#);
        let unusable = parse(&lone, LIMITS).expect_err("no UTF-8, no canonical form");
        assert_eq!(unusable.reason, Reason::Malformed);
        assert_eq!(unusable.claims, Some((EventId([0xaa; 32]), 1_700_000_000)));
        let unusable = parse(&with("id", json!("A".repeat(64))), LIMITS).expect_err("refused");
        assert_eq!(unusable.claims, None);
    }
}
