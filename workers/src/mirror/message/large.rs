//! Messages over the limit, of which only the first and the last bytes are known.

use tender_jobs::mirror::event::{EventId, Reason, Unusable};

use super::Message;

/// The first and last bytes of an event in which its fields are looked for.
const EDGE: usize = 4096;

/// Returns the message that a message over the limit stands for; `None` if no reader waits for it.
pub(in crate::mirror) fn large(start: &[u8], end: &[u8], size: usize) -> Option<Message> {
    let text = String::from_utf8_lossy(start);
    let (verb, rest) = string(text.trim_start().strip_prefix('[')?)?;
    let (subscription, _) = string(rest.trim_start().strip_prefix(',')?)?;
    match verb {
        "EVENT" => Some(Message::TooLarge(subscription.to_owned(), claimed(start, end, size))),
        "NEG-MSG" => {
            let why = "blocked: the answer is too large for us".to_owned();
            Some(Message::NegErr(subscription.to_owned(), why, None))
        }
        _ => None,
    }
}

/// Returns what an event over the limit claims, without parsing the event.
pub(in crate::mirror) fn too_large(event: &str) -> Unusable {
    let bytes = event.as_bytes();
    let (start, end) = (bytes.len().min(EDGE), bytes.len().saturating_sub(EDGE));
    claimed(&bytes[..start], &bytes[end..], bytes.len())
}

/// Relays write the short fields before or after the long ones. A string within the event cannot be
/// taken for one of its keys, because its quotes are escaped.
fn claimed(start: &[u8], end: &[u8], size: usize) -> Unusable {
    let of = |key: &str| value(start, key).or_else(|| value(end, key));
    let id = of("\"id\"").and_then(hex).and_then(EventId::parse);
    let created_at = of("\"created_at\"").and_then(number).filter(|at| *at <= 1 << 53);
    let author = of("\"pubkey\"").and_then(hex).and_then(EventId::parse);
    Unusable {
        reason: Reason::TooLarge,
        claims: id.zip(created_at),
        kind: of("\"kind\"").and_then(number).and_then(|kind| kind.try_into().ok()),
        author: author.map(|author| author.0),
        size: Some(i32::try_from(size).unwrap_or(i32::MAX)),
    }
}

/// Returns the text after a key and its colon.
fn value<'a>(bytes: &'a [u8], key: &str) -> Option<&'a str> {
    let windows = bytes.windows(key.len()).enumerate();
    windows.filter(|(_, found)| *found == key.as_bytes()).find_map(|(at, _)| {
        let rest = &bytes[at + key.len()..];
        let rest = &rest[..rest.len().min(100)];
        let ascii = rest.iter().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
        let text = std::str::from_utf8(&rest[..ascii]).ok()?;
        Some(text.trim_start().strip_prefix(':')?.trim_start())
    })
}

/// Returns the 64 digits of a string.
fn hex(text: &str) -> Option<&str> {
    text.strip_prefix('"')?.get(..64)
}

fn number(text: &str) -> Option<i64> {
    let digits = text.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(text.len());
    text[..digits].parse().ok()
}

/// Splits off a string without escapes.
fn string(text: &str) -> Option<(&str, &str)> {
    let (string, rest) = text.trim_start().strip_prefix('"')?.split_once('"')?;
    (!string.contains('\\')).then_some((string, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id() -> String {
        "ab".repeat(32)
    }

    #[test]
    fn a_large_event_says_for_whom_and_which_it_is() {
        let id = id();
        let front = format!(
            r#"["EVENT","poll_1",{{"id":"{id}","pubkey":"{id}","created_at":1700000000,"kind":7,"#
        );
        let back =
            format!(r#"xxx","created_at": 1700000000, "id" : "{id}","kind":7, "pubkey":"{id}"}}]"#);
        let unusable = Unusable {
            reason: Reason::TooLarge,
            claims: Some((EventId([0xab; 32]), 1_700_000_000)),
            kind: Some(7),
            author: Some([0xab; 32]),
            size: Some(99_999),
        };
        for (start, end) in [(front.as_str(), "xxx"), (r#" [ "EVENT" , "poll_1" , {"#, &back)] {
            let message = large(start.as_bytes(), end.as_bytes(), 99_999);
            assert_eq!(message, Some(Message::TooLarge("poll_1".to_owned(), unusable)), "{start}");
        }
        let event = format!(r#"{{"id":"{id}","content":"{}","created_at":7}}"#, "é".repeat(9000));
        assert_eq!(too_large(&event).claims, Some((EventId([0xab; 32]), 7)));
    }

    #[test]
    fn the_content_of_an_event_claims_nothing() {
        let id = id();
        let inner = format!(r#"{{\"id\":\"{id}\",\"created_at\":1,"#);
        let event = format!(r#"{{"content":"{inner}","tags":[["id","{id}"]]}}"#);
        assert_eq!(too_large(&event).claims, None);
    }

    #[test]
    fn other_large_messages_end_what_waits_for_them() {
        let frame = large(br#"["NEG-MSG","neg_1","6100"#, b"00", 1);
        assert!(matches!(frame, Some(Message::NegErr(id, _, None)) if id == "neg_1"));
        for start in ["", "{", r#"["NOTICE","x"#, r#"["NOTICE","x","#, r#"["EVENT",1"#] {
            assert_eq!(large(start.as_bytes(), b"", 1), None, "{start}");
        }
    }
}
