//! Messages of an upstream, parsed as far as routing requires. The socket's task does not parse
//! events.

mod large;

use serde_json::value::RawValue;
use tender_jobs::mirror::event::Unusable;

pub(super) use large::{large, too_large};

/// A message from an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// `EVENT`: the subscription, and the event as unparsed JSON.
    Event(String, String),
    /// An `EVENT` over the limit: the subscription, and what the event claims.
    TooLarge(String, Unusable),
    /// `EOSE`: the subscription whose stored events have all been sent.
    Eose(String),
    /// `CLOSED`: the subscription that ended, and the reason.
    Closed(String, String),
    /// `OK`: the id of an event that we sent, whether it was accepted, and the reason.
    Ok(String, bool, String),
    /// `NOTICE`: a text for people.
    Notice(String),
    /// `AUTH`: the challenge. Source: NIP-42.
    Auth(String),
    /// `NEG-MSG`: the subscription, and a negentropy frame in hex. Source: NIP-77.
    NegMsg(String, String),
    /// `NEG-ERR`, or `NEG-ERROR` as khatru spells it: the subscription, the reason, and the largest
    /// accepted number of records if given.
    NegErr(String, String, Option<u64>),
    /// A message with another verb.
    Unknown(String),
}

/// The most characters of a text for people that are kept.
const MAX_WORDS: usize = 2000;

/// Parses a message; `None` if malformed.
pub(super) fn parse(text: &str) -> Option<Message> {
    if let Some(event) = quick_event(text) {
        return Some(event);
    }
    let parts: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let string =
        |index: usize| -> Option<String> { serde_json::from_str(parts.get(index)?.get()).ok() };
    let words = |index: usize| -> String {
        string(index).unwrap_or_default().chars().take(MAX_WORDS).collect()
    };
    Some(match string(0)?.as_str() {
        "EVENT" => Message::Event(string(1)?, parts.get(2)?.get().to_owned()),
        "EOSE" => Message::Eose(string(1)?),
        "CLOSED" => Message::Closed(string(1)?, words(2)),
        "OK" => Message::Ok(string(1)?, serde_json::from_str(parts.get(2)?.get()).ok()?, words(3)),
        "NOTICE" => Message::Notice(string(1).map(|_| words(1))?),
        "AUTH" => Message::Auth(string(1)?),
        "NEG-MSG" => Message::NegMsg(string(1)?, string(2)?),
        "NEG-ERR" | "NEG-ERROR" => {
            let most = parts.get(3).and_then(|most| serde_json::from_str(most.get()).ok());
            Message::NegErr(string(1)?, words(2), most)
        }
        verb => Message::Unknown(verb.to_owned()),
    })
}

/// Parses an `EVENT` message in its usual spelling without parsing the event; `None` for any other
/// text.
fn quick_event(text: &str) -> Option<Message> {
    let (id, rest) = text.strip_prefix(r#"["EVENT",""#)?.split_once('"')?;
    let event = rest.strip_prefix(',')?.strip_suffix(']')?;
    (!id.contains('\\')).then(|| Message::Event(id.to_owned(), event.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_verb_is_read_in_any_spacing() {
        let s = str::to_owned;
        for (text, message) in [
            (r#"["EVENT","a",{"id":1}]"#, Message::Event(s("a"), s(r#"{"id":1}"#))),
            (r#" [ "EVENT" , "a" , {"id":1} ] "#, Message::Event(s("a"), s(r#"{"id":1}"#))),
            (r#"["EOSE","a"]"#, Message::Eose(s("a"))),
            (r#"["CLOSED","a","error: b"]"#, Message::Closed(s("a"), s("error: b"))),
            (r#"["CLOSED","a"]"#, Message::Closed(s("a"), s(""))),
            (r#"["OK","e",true,""]"#, Message::Ok(s("e"), true, s(""))),
            (r#"["OK","e",false]"#, Message::Ok(s("e"), false, s(""))),
            (r#"["NOTICE","n"]"#, Message::Notice(s("n"))),
            (r#"["AUTH","c"]"#, Message::Auth(s("c"))),
            (r#"["NEG-MSG","a","61"]"#, Message::NegMsg(s("a"), s("61"))),
            (
                r#"["NEG-ERR","a","blocked: b",9]"#,
                Message::NegErr(s("a"), s("blocked: b"), Some(9)),
            ),
            (r#"["NEG-ERROR","a","closed: b"]"#, Message::NegErr(s("a"), s("closed: b"), None)),
            (r#"["NEG-ERR","a","closed: b"]"#, Message::NegErr(s("a"), s("closed: b"), None)),
            (r#"["COUNT","a",{}]"#, Message::Unknown(s("COUNT"))),
        ] {
            assert_eq!(parse(text), Some(message), "{text}");
        }
    }

    #[test]
    fn what_is_no_message_is_none() {
        for text in ["", "{}", "[]", "[1]", r#"["OK","e","true"]"#, r#"["EOSE",1]"#, "nonsense"] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
