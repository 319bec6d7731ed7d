//! Removes secrets from a text of zooid or of a proxy, which may repeat our request.

/// Replaces a secret.
const SECRET: &str = "[secret]";
/// Replaces a signed authorization, which is valid for 60 s.
const AUTHORIZATION: &str = "[authorization]";
/// The shortest run of base64 that counts as a signed event. An event has more than 300 bytes.
const SHORTEST_EVENT: usize = 64;
/// The length of a signature in hex.
const SIGNATURE: usize = 128;
/// The length of a secret key in hex.
const KEY: usize = 64;
/// How far in front of a key the word `secret` marks it as secret.
const NEAR: usize = 24;

/// Returns the text without the given secrets, signed authorizations, signatures and secret keys.
pub(super) fn redact<'a>(text: &str, secrets: impl IntoIterator<Item = &'a str>) -> String {
    let mut text = text.to_owned();
    for secret in secrets.into_iter().filter(|secret| !secret.is_empty()) {
        for form in forms(secret) {
            text = text.replace(&form, SECRET);
        }
    }
    without_signatures(&text)
}

/// Returns the forms in which a text may repeat a secret: as it is, in JSON, in a URL, in HTML.
fn forms(secret: &str) -> Vec<String> {
    let json = serde_json::Value::from(secret).to_string();
    let json = json.trim_matches('"').to_owned();
    let slashed = json.replace('/', "\\/");
    let url = escape(secret, |byte| format!("%{byte:02X}"));
    let lower_url = escape(secret, |byte| format!("%{byte:02x}"));
    let html = escape(secret, |byte| format!("&#{byte};"));
    let mut forms = vec![secret.to_owned(), json, slashed, url, lower_url, html];
    // The longest first: a shorter form may be a part of it.
    forms.sort_by_key(|form| std::cmp::Reverse(form.len()));
    forms.dedup();
    forms
}

fn escape(text: &str, code: impl Fn(u8) -> String) -> String {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    text.bytes()
        .map(|byte| if is_plain(byte) { char::from(byte).into() } else { code(byte) })
        .collect()
}

/// Goes through the runs of characters that base64, hex and their escapes consist of.
fn without_signatures(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(is_token) {
        let run = &rest[start..];
        let end = run.find(|letter| !is_token(letter)).unwrap_or(run.len());
        clean.push_str(&rest[..start]);
        let replaced = replacement(&clean, &run[..end]);
        clean.push_str(replaced.as_deref().unwrap_or(&run[..end]));
        rest = &run[end..];
    }
    clean + rest
}

fn is_token(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || "+/=_-%\\".contains(letter)
}

/// Returns what a run is replaced by, if it is secret. `before` is the text in front of it.
fn replacement(before: &str, run: &str) -> Option<String> {
    if follows_scheme(before) && run.len() >= 16 {
        return Some(AUTHORIZATION.to_owned());
    }
    // `ey` is base64 of an opening brace and a quotation mark or a blank.
    if let Some(start) = ["eyJ", "eyA", "ewo", "ewg"].iter().filter_map(|head| run.find(head)).min()
        && run.len() - start >= SHORTEST_EVENT
    {
        return Some(format!("{}{AUTHORIZATION}", &run[..start]));
    }
    let is_hex = run.bytes().all(|byte| byte.is_ascii_hexdigit());
    if is_hex && run.len() >= SIGNATURE {
        return Some("[signature]".to_owned());
    }
    (is_hex && run.len() == KEY && is_called_secret(before)).then(|| SECRET.to_owned())
}

/// Whether the text ends with the scheme `Nostr` and blanks.
fn follows_scheme(before: &str) -> bool {
    let word = before.trim_end();
    word.len() < before.len() && word.to_ascii_lowercase().ends_with("nostr")
}

fn is_called_secret(before: &str) -> bool {
    let letters: Vec<char> = before.chars().rev().take(NEAR).collect();
    let near: String = letters.into_iter().rev().collect();
    near.to_ascii_lowercase().contains("secret")
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::{Engine, engine::general_purpose::STANDARD};

    fn event() -> String {
        STANDARD.encode(format!(r#"{{"id":"{}","sig":"{}"}}"#, "a".repeat(64), "b".repeat(128)))
    }

    #[test]
    fn a_signed_authorization_is_removed_in_every_form() {
        let event = event();
        let texts = [
            format!("Authorization: Nostr {event} was sent"),
            format!("NOSTR  {event} was sent"),
            format!("nOsTr\t{event} was sent"),
            format!("header \"{event}\" was sent"),
            format!("Nostr%20{event} was sent"),
            format!("Nostr {} was sent", event.replace('=', "%3D")),
            format!("{{\"authorization\":\"Nostr {}\"}} was sent", event.replace('/', "\\/")),
            "Nostr AAAAAAAAAAAAAAAAAAAAAAAA was sent".to_owned(),
        ];
        for text in texts {
            let clean = redact(&text, []);
            assert!(clean.contains(AUTHORIZATION) && clean.ends_with(" was sent"), "{clean}");
            assert!(!clean.contains(&event[..40]), "{clean}");
        }
    }

    #[test]
    fn a_decoded_event_loses_its_signature_and_keeps_its_id() {
        let (id, sig) = ("a".repeat(64), "b".repeat(128));
        let clean = redact(&format!(r#"{{"id":"{id}","sig":"{sig}"}}"#), []);
        assert_eq!(clean, format!(r#"{{"id":"{id}","sig":"[signature]"}}"#));
    }

    #[test]
    fn a_key_that_is_called_secret_is_removed() {
        let key = "c".repeat(64);
        assert_eq!(
            redact(&format!("invalid secret key: {key}"), []),
            "invalid secret key: [secret]"
        );
        assert_eq!(redact(&format!("{{\"secret\": \"{key}\"}}"), []), "{\"secret\": \"[secret]\"}");
        assert_eq!(redact(&format!("pubkey {key}"), []), format!("pubkey {key}"));
    }

    #[test]
    fn a_known_secret_is_removed_also_when_it_is_escaped() {
        let secret = "a/b+c\"d";
        let texts = [
            "a/b+c\"d",
            "a/b+c\\\"d",
            "a\\/b+c\\\"d",
            "a%2Fb%2Bc%22d",
            "a%2fb%2bc%22d",
            "a&#47;b&#43;c&#34;d",
        ];
        for text in texts {
            assert_eq!(redact(&format!("key {text}."), [secret]), "key [secret].", "{text}");
        }
    }

    #[test]
    fn words_of_zooid_stay_as_they_are() {
        for text in [
            "host \"alpha.zooid.test\" is already in use",
            "event missing or invalid u tag",
            "Nostr relays are hosted here",
            "they say: Wörter",
        ] {
            assert_eq!(redact(text, ["s3cret"]), text);
        }
    }
}
