//! Names as people type them. The dashboard, the commands and the API bring what was typed into the form that
//! rows have by this one function, so that all of them find the same things.

use nostr::nips::nip19::{FromBech32, Nip19, Nip19Event, Nip19Profile};

/// The longest text that is searched for, in characters.
const LONGEST: usize = 400;

/// Returns what is searched for: a public key or the id of an event in hex if the text is its bech32 form, and a
/// host or an address without scheme and closing slash; `None` without a text.
pub(crate) fn normal(typed: &str) -> Option<String> {
    // PostgreSQL's texts have no U+0000: a name with it is none.
    let text: String = typed.trim().replace('\0', "\u{fffd}").chars().take(LONGEST).collect();
    let text = text.strip_prefix("nostr:").unwrap_or(&text);
    if let Some(hex) = decoded(text) {
        return Some(hex);
    }
    let bare = ["wss://", "ws://", "https://", "http://"].iter().find_map(|scheme| {
        let start = text.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| &text[scheme.len()..])
    });
    let text = bare.map_or(text, |bare| bare.trim_end_matches('/'));
    (!text.is_empty()).then(|| text.to_owned())
}

/// Returns the hex form of a bech32 text: npub, nprofile, note or nevent.
fn decoded(text: &str) -> Option<String> {
    match Nip19::from_bech32(text).ok()? {
        Nip19::Pubkey(key) => Some(key.to_hex()),
        Nip19::Profile(Nip19Profile { public_key, .. }) => Some(public_key.to_hex()),
        Nip19::EventId(id) => Some(id.to_hex()),
        Nip19::Event(Nip19Event { event_id, .. }) => Some(event_id.to_hex()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NPUB: &str = "npub1xtscya34g58tk0z605fvr788k263gsu6cy9x0mhnm87echrgufzsevkk5s";

    #[test]
    fn keys_and_ids_are_searched_in_hex() {
        let hex = "32e1827635450ebb3c5a7d12c1f8e7b2b514439ac10a67eef3d9fd9c5c68e245";
        for typed in [NPUB.to_owned(), format!(" nostr:{NPUB} "), hex.to_owned()] {
            assert_eq!(normal(&typed).as_deref(), Some(hex), "{typed}");
        }
    }

    #[test]
    fn addresses_are_searched_by_their_host() {
        for typed in ["wss://a.example/", "WSS://a.example", " a.example ", "https://a.example"] {
            assert_eq!(normal(typed).as_deref(), Some("a.example"), "{typed}");
        }
        assert_eq!(normal("\0").as_deref(), Some("\u{fffd}"));
        for nothing in ["", " ", "wss://"] {
            assert_eq!(normal(nothing), None, "{nothing}");
        }
    }
}
