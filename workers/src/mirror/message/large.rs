//! Messages over the limit, of which only the first and the last bytes are known.

use tender_jobs::mirror::event::EventId;

use super::Message;

/// The first and last bytes of an event in which its id and time are looked for.
const EDGE: usize = 4096;

/// Returns the message that a message over the limit stands for; `None` if no reader waits for it.
pub(in crate::mirror) fn large(start: &[u8], end: &[u8]) -> Option<Message> {
    let text = String::from_utf8_lossy(start);
    let (verb, rest) = string(text.trim_start().strip_prefix('[')?)?;
    let (subscription, _) = string(rest.trim_start().strip_prefix(',')?)?;
    match verb {
        "EVENT" => Some(Message::TooLarge(subscription.to_owned(), claims_in(start, end))),
        "NEG-MSG" => {
            let why = "blocked: the answer is too large for us".to_owned();
            Some(Message::NegErr(subscription.to_owned(), why, None))
        }
        _ => None,
    }
}

/// Returns the id and time that an event claims, without parsing the event.
pub(in crate::mirror) fn claims(event: &str) -> Option<(EventId, i64)> {
    let bytes = event.as_bytes();
    claims_in(&bytes[..bytes.len().min(EDGE)], &bytes[bytes.len().saturating_sub(EDGE)..])
}

/// Relays write the id and the time before or after the long fields. A string within the event
/// cannot be taken for one of its keys, because its quotes are escaped.
fn claims_in(start: &[u8], end: &[u8]) -> Option<(EventId, i64)> {
    let of = |key: &str| value(start, key).or_else(|| value(end, key));
    let id = of("\"id\"")?;
    let id = EventId::parse(id.strip_prefix('"')?.get(..64)?)?;
    let time = of("\"created_at\"")?;
    let digits = time.find(|letter: char| !letter.is_ascii_digit()).unwrap_or(time.len());
    Some((id, time[..digits].parse().ok().filter(|at| *at <= 1 << 53)?))
}

/// Returns the text after a key and its colon.
fn value<'a>(bytes: &'a [u8], key: &str) -> Option<&'a str> {
    let places = bytes.windows(key.len()).enumerate().filter(|(_, found)| *found == key.as_bytes());
    places.into_iter().find_map(|(at, _)| {
        let rest = &bytes[at + key.len()..];
        let rest = &rest[..rest.len().min(100)];
        let ascii = rest.iter().position(|byte| !byte.is_ascii()).unwrap_or(rest.len());
        let text = std::str::from_utf8(&rest[..ascii]).ok()?;
        Some(text.trim_start().strip_prefix(':')?.trim_start())
    })
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
        let claimed = Some((EventId([0xab; 32]), 1_700_000_000));
        let id = id();
        let front = format!(r#"["EVENT","poll_1",{{"id":"{id}","created_at":1700000000,"#);
        let back = format!(r#"xxx","created_at": 1700000000, "id" : "{id}","kind":1}}]"#);
        for (start, end) in [(front.as_str(), "xxx"), (r#" [ "EVENT" , "poll_1" , {"#, &back)] {
            let message = large(start.as_bytes(), end.as_bytes());
            assert_eq!(message, Some(Message::TooLarge("poll_1".to_owned(), claimed)), "{start}");
        }
        let event = format!(r#"{{"id":"{id}","content":"{}","created_at":7}}"#, "é".repeat(9000));
        assert_eq!(claims(&event), Some((EventId([0xab; 32]), 7)));
    }

    #[test]
    fn the_content_of_an_event_claims_nothing() {
        let id = id();
        let inner = format!(r#"{{\"id\":\"{id}\",\"created_at\":1,"#);
        let event = format!(r#"{{"content":"{inner}","tags":[["id","{id}"]]}}"#);
        assert_eq!(claims(&event), None);
    }

    #[test]
    fn other_large_messages_end_what_waits_for_them() {
        let frame = large(br#"["NEG-MSG","neg_1","6100"#, b"00");
        assert!(matches!(frame, Some(Message::NegErr(id, _, None)) if id == "neg_1"));
        for start in ["", "{", r#"["NOTICE","x"#, r#"["NOTICE","x","#, r#"["EVENT",1"#] {
            assert_eq!(large(start.as_bytes(), b""), None, "{start}");
        }
    }
}
