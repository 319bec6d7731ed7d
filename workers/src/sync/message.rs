//! What a relay says, split as far as its route needs: the socket's task reads no event.

use serde_json::value::RawValue;

/// A message of a relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// An event of a subscription, as JSON text that nobody has looked at.
    Event(String, String),
    /// The end of what is stored.
    Eose(String),
    /// The end of a subscription, and why.
    Closed(String, String),
    /// What became of an event that was sent: its id, whether it was taken, the relay's words.
    Ok(String, bool, String),
    /// For people.
    Notice(String),
    /// The challenge of NIP-42.
    Auth(String),
    /// A frame of negentropy, in hex.
    NegMsg(String, String),
    /// The end of a reconciliation, why, and the most records that would be accepted.
    NegErr(String, String, Option<u64>),
    /// A verb that is none of ours.
    Unknown(String),
}

/// Reads a message; `None` when it is none.
pub(super) fn parse(text: &str) -> Option<Message> {
    if let Some(event) = quick_event(text) {
        return Some(event);
    }
    let parts: Vec<&RawValue> = serde_json::from_str(text).ok()?;
    let string =
        |index: usize| -> Option<String> { serde_json::from_str(parts.get(index)?.get()).ok() };
    let words = |index: usize| string(index).unwrap_or_default();
    Some(match string(0)?.as_str() {
        "EVENT" => Message::Event(string(1)?, parts.get(2)?.get().to_owned()),
        "EOSE" => Message::Eose(string(1)?),
        "CLOSED" => Message::Closed(string(1)?, words(2)),
        "OK" => Message::Ok(string(1)?, serde_json::from_str(parts.get(2)?.get()).ok()?, words(3)),
        "NOTICE" => Message::Notice(string(1)?),
        "AUTH" => Message::Auth(string(1)?),
        "NEG-MSG" => Message::NegMsg(string(1)?, string(2)?),
        "NEG-ERR" => {
            let most = parts.get(3).and_then(|most| serde_json::from_str(most.get()).ok());
            Message::NegErr(string(1)?, words(2), most)
        }
        verb => Message::Unknown(verb.to_owned()),
    })
}

/// The usual shape of an event's message, without a look into the event.
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
