//! Addresses of repositories, announcements, and the names of hosts. Pure.

mod announcement;

use std::fmt;

pub use announcement::Announcement;

/// The kind of an announcement of a repository (NIP-34).
pub const ANNOUNCEMENT: u16 = 30617;
/// The kind of a repository's state: its branches and tags.
pub const STATE: u16 = 30618;
/// The kind of a user's list of services (GRASP).
pub const GRASP_LIST: u16 = 10317;
/// The kinds of roots: patches, pull requests and issues.
pub const ROOTS: [u16; 3] = [1617, 1618, 1621];

/// The longest identifier, in bytes: the store holds no longer `d` tag.
const MAX_IDENTIFIER: usize = 1024;

/// The address of an addressable or replaceable event: kind, author and `d` tag. Its text is
/// `kind:pubkey:identifier`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The kind.
    pub kind: u16,
    /// The public key of the author.
    pub pubkey: [u8; 32],
    /// The `d` tag, byte for byte; it may contain colons.
    pub identifier: String,
}

impl Address {
    /// Parses an address. The public key may be in upper case. `None` if malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ':');
        let kind = parts.next()?;
        let kind = kind.bytes().all(|byte| byte.is_ascii_digit()).then(|| kind.parse().ok())??;
        let mut pubkey = [0; 32];
        hex::decode_to_slice(parts.next()?, &mut pubkey).ok()?;
        let identifier = parts.next()?;
        let fits = identifier.len() <= MAX_IDENTIFIER && !identifier.contains('\0');
        fits.then(|| Self { kind, pubkey, identifier: identifier.to_owned() })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.kind, hex::encode(self.pubkey), self.identifier)
    }
}

/// The address of a repository: `30617:pubkey:identifier`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RepoAddress(Address);

impl RepoAddress {
    /// Returns the address of an author's repository; `None` if the identifier is not allowed.
    pub fn new(pubkey: [u8; 32], identifier: &str) -> Option<Self> {
        let identifier = is_identifier(identifier).then(|| identifier.to_owned())?;
        Some(Self(Address { kind: ANNOUNCEMENT, pubkey, identifier }))
    }

    /// Parses an address; `None` if it is malformed or of another kind.
    pub fn parse(text: &str) -> Option<Self> {
        let address = Address::parse(text).filter(|address| address.kind == ANNOUNCEMENT)?;
        is_identifier(&address.identifier).then_some(Self(address))
    }

    /// The public key of the author.
    pub fn pubkey(&self) -> [u8; 32] {
        self.0.pubkey
    }

    /// The identifier, byte for byte.
    pub fn identifier(&self) -> &str {
        &self.0.identifier
    }
}

impl fmt::Display for RepoAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Whether a repository may have this identifier. Any text may be one, except for those that cannot be
/// a folder: the empty one, `.`, `..`, and those with a slash, a backslash or U+0000. It has at most
/// 1,024 bytes.
pub fn is_identifier(text: &str) -> bool {
    !matches!(text, "" | "." | "..")
        && text.len() <= MAX_IDENTIFIER
        && !text.contains(['/', '\\', '\0'])
}

/// Returns the host of a URL in lower case, with its port unless it is the scheme's; `None` if the text
/// is not a URL with a host. Names of services are compared with this form.
pub fn host_of(url: &str) -> Option<String> {
    host_and_port(&url::Url::parse(url.trim()).ok()?)
}

fn host_and_port(url: &url::Url) -> Option<String> {
    let host = url.host_str()?.to_ascii_lowercase();
    let host = host.strip_suffix('.').unwrap_or(&host);
    let default = match url.scheme() {
        "git" => Some(9418),
        "ssh" => Some(22),
        _ => None, // the parser drops the default ports of http, https, ws and wss
    };
    let port = url.port().filter(|port| Some(*port) != default);
    let text = port.map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    (!host.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn hosts_are_compared_with_their_effective_ports() {
        for (url, host) in [
            ("https://Git.Example.com/npub1/x.git", Some("git.example.com")),
            ("wss://git.example.com:443", Some("git.example.com")),
            ("ws://git.example.com:443", Some("git.example.com:443")),
            ("http://git.example.com.:80/", Some("git.example.com")),
            ("git://git.example.com:9418/x", Some("git.example.com")),
            ("ssh://git@git.example.com:22/x", Some("git.example.com")),
            ("wss://[::1]:7000", Some("[::1]:7000")),
            ("git@git.example.com:x.git", None),
            ("git.example.com", None),
            ("", None),
        ] {
            assert_eq!(host_of(url).as_deref(), host, "{url}");
        }
    }

    #[test]
    fn an_address_is_split_at_the_first_two_colons_only() {
        let key = "AB".repeat(32);
        let address = RepoAddress::parse(&format!("30617:{key}:a:b::c")).expect("an address");
        assert_eq!(address.identifier(), "a:b::c");
        assert_eq!(address.to_string(), format!("30617:{}:a:b::c", key.to_lowercase()));
        for text in [
            format!("30618:{key}:a"),
            format!("+30617:{key}:a"),
            format!("30617:{key}"),
            format!("30617:{key}:.."),
            format!("30617:{}:a", &key[1..]),
        ] {
            assert_eq!(RepoAddress::parse(&text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn an_address_reads_back_as_it_was_written(key: [u8; 32], identifier in "\\PC{1,40}") {
            prop_assume!(is_identifier(&identifier));
            let address = RepoAddress::new(key, &identifier).expect("allowed");
            prop_assert_eq!(RepoAddress::parse(&address.to_string()), Some(address));
        }

        #[test]
        fn no_text_panics(text in "\\PC{0,80}") {
            let _parsed = (Address::parse(&text), host_of(&text), is_identifier(&text));
        }

        #[test]
        fn a_longer_name_is_another_host(before in "[a-z]{1,8}", after in "[a-z]{2,8}") {
            for url in [
                format!("wss://{before}-git.example.com"),
                format!("wss://{before}.git.example.com"),
                format!("wss://git.example.com.{after}"),
                format!("wss://{before}.test/git.example.com"),
                format!("wss://git.example.com@{before}.test"),
            ] {
                prop_assert_ne!(host_of(&url), Some("git.example.com".to_owned()), "{}", url);
            }
        }
    }
}
