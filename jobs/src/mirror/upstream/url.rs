//! The address of an upstream.

use serde::Serialize;

use crate::mirror::address::is_private_host;

/// The address of an upstream in its normal form: scheme and host in lower case, no default port,
/// no dot after the host, no `/` for an empty path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UpstreamUrl(String);

impl UpstreamUrl {
    /// Parses and normalises an address.
    ///
    /// # Errors
    /// The rule that the address violates, for people.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const INVALID: &str = "must be a valid WebSocket URL, such as wss://relay.example.com";
        let text = text.trim();
        if text.is_empty() {
            return Err("can't be blank");
        }
        // The parser of URLs repairs `wss:host` and `ws:///host`, which are mistakes.
        let rest = text.split_once(':').map_or("", |(_, rest)| rest);
        if !rest.starts_with("//") || rest.starts_with("///") || text.contains('\\') {
            return Err(INVALID);
        }
        let mut url = url::Url::parse(text).map_err(|_| INVALID)?;
        if !matches!(url.scheme(), "ws" | "wss") || url.host_str().is_none_or(str::is_empty) {
            return Err(INVALID);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("must be a valid WebSocket URL without user and password");
        }
        if url.fragment().is_some() {
            return Err("must be a valid WebSocket URL without a fragment");
        }
        if url.port() == Some(0) {
            return Err("must have a port from 1 to 65535");
        }
        if let Some(name) = url.domain().and_then(|name| name.strip_suffix('.')) {
            let name = name.to_owned();
            url.set_host(Some(&name)).map_err(|_| INVALID)?;
        }
        let mut text = url.to_string();
        if url.path() == "/" && url.query().is_none() {
            text.pop();
        }
        if text.len() > 255 { Err("must have at most 255 characters") } else { Ok(Self(text)) }
    }

    /// Whether the host is certain not to be public, without a lookup.
    pub fn is_private(&self) -> bool {
        let url = url::Url::parse(&self.0).ok();
        url.and_then(|url| Some(is_private_host(&url.host()?))).unwrap_or(true)
    }

    /// Returns the address as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spellings_of_one_address_are_one() {
        for (text, wanted) in [
            ("WSS://Relay.Example.COM", "wss://relay.example.com"),
            ("wss://relay.example.com:443/", "wss://relay.example.com"),
            ("ws://relay.example.com:80", "ws://relay.example.com"),
            (" ws://127.0.0.1:7777/ ", "ws://127.0.0.1:7777"),
            ("wss://relay.example.com./", "wss://relay.example.com"),
            ("wss://relay.example.com/Chat/", "wss://relay.example.com/Chat/"),
        ] {
            assert_eq!(UpstreamUrl::parse(text).map(|url| url.0), Ok(wanted.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_is_refused() {
        let long = format!("wss://a/{}", "x".repeat(255));
        for (text, words) in [
            ("", "blank"),
            ("relay.example.com", "valid WebSocket URL"),
            ("https://relay.example.com", "valid WebSocket URL"),
            ("wss://", "valid WebSocket URL"),
            ("wss:relay.example.com", "valid WebSocket URL"),
            ("ws:///relay.example.com", "valid WebSocket URL"),
            ("ws:\\\\relay.example.com", "valid WebSocket URL"),
            ("wss://.", "valid WebSocket URL"),
            ("wss://user:pass@relay.example.com", "without user"),
            ("wss://relay.example.com/#a", "fragment"),
            ("wss://relay.example.com:0", "port"),
            (&long, "255"),
        ] {
            let error = UpstreamUrl::parse(text).expect_err("refused");
            assert!(error.contains(words), "{text}: {error}");
        }
    }
}
