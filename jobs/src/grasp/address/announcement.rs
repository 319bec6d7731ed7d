//! Announcements of repositories (NIP-34).

use super::{ANNOUNCEMENT, RepoAddress, host_and_port, host_of};
use crate::mirror::{event::Event, upstream::UpstreamUrl};

/// The most values that are read of one kind of tag.
const MAX_VALUES: usize = 1000;
/// The most maintainers that an announcement can list.
const MAX_MAINTAINERS: usize = 100;
/// The longest name that is kept, in characters.
const MAX_NAME: usize = 200;

/// What an announcement says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Announcement {
    /// The address of the repository; `None` if its identifier is missing or not allowed.
    pub address: Option<RepoAddress>,
    /// The name, for people.
    pub name: Option<String>,
    /// The number of `clone` tags; NIP-34 knows one, with all URLs.
    pub clone_tags: usize,
    /// The URLs of the `clone` tags.
    pub clones: Vec<String>,
    /// The URLs of the `relays` tags.
    pub relays: Vec<String>,
    /// The public keys of the co-maintainers.
    pub maintainers: Vec<[u8; 32]>,
}

impl Announcement {
    /// Reads an announcement; `None` if the event is of another kind.
    pub fn of(event: &Event) -> Option<Self> {
        if event.kind != ANNOUNCEMENT {
            return None;
        }
        let identifier = event.d_tag().unwrap_or_default();
        let name = values(event, "name").next().map(clean);
        Some(Self {
            address: RepoAddress::new(event.pubkey, identifier),
            name: name.filter(|name| !name.is_empty()),
            clone_tags: event.tags.iter().filter(|tag| tag[0] == "clone").count(),
            clones: values(event, "clone").take(MAX_VALUES).map(str::to_owned).collect(),
            relays: values(event, "relays").take(MAX_VALUES).map(str::to_owned).collect(),
            maintainers: values(event, "maintainers")
                .filter_map(key)
                .filter(|key| *key != event.pubkey)
                .take(MAX_MAINTAINERS)
                .collect(),
        })
    }

    /// Whether one of the hosts is named both by a clone URL and by a relay.
    pub fn names(&self, hosts: &[String]) -> bool {
        let has = |urls: &[String]| {
            let mut named = urls.iter().filter_map(|url| host_of(url));
            named.any(|host| hosts.contains(&host))
        };
        has(&self.clones) && has(&self.relays)
    }

    /// Returns the relays that have the repository's events, in the order in which the announcement names
    /// them: its relays, then the servers of its clone URLs. Each is in its normal form and occurs once.
    /// Those whose host is one of `own` are left out.
    pub fn targets(&self, own: &[String]) -> Vec<UpstreamUrl> {
        let relays = self.relays.iter().filter_map(|url| relay(url));
        let servers = self.clones.iter().filter_map(|url| server(url));
        let mut targets: Vec<UpstreamUrl> = Vec::new();
        for target in relays.chain(servers) {
            let is_own = host_of(target.as_str()).is_none_or(|host| own.contains(&host));
            if !is_own && !targets.contains(&target) {
                targets.push(target);
            }
        }
        targets
    }
}

fn values<'a>(event: &'a Event, name: &'static str) -> impl Iterator<Item = &'a str> {
    let tags = event.tags.iter().filter(move |tag| tag[0] == name);
    tags.flat_map(|tag| &tag[1..]).map(String::as_str)
}

/// Returns a text on one line, without control characters, cut at [`MAX_NAME`].
fn clean(text: &str) -> String {
    let text: String = text.chars().filter(|c| !c.is_control()).take(MAX_NAME).collect();
    text.trim().to_owned()
}

fn key(text: &str) -> Option<[u8; 32]> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).ok().map(|()| key)
}

/// Returns a relay's address; a slash at the end of its path has no meaning.
fn relay(text: &str) -> Option<UpstreamUrl> {
    UpstreamUrl::parse(text.trim().trim_end_matches('/')).ok()
}

/// Returns the relay beside a git server: the same host and port.
fn server(text: &str) -> Option<UpstreamUrl> {
    let url = url::Url::parse(text.trim()).ok()?;
    let scheme = match url.scheme() {
        "https" | "wss" => "wss",
        "http" | "ws" => "ws",
        _ => return None,
    };
    UpstreamUrl::parse(&format!("{scheme}://{}", host_and_port(&url)?)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mirror::event::EventId;

    fn announcement(tags: &[&[&str]]) -> Announcement {
        let tags = tags.iter().map(|tag| tag.iter().map(|part| (*part).to_owned()).collect());
        let event = Event {
            id: EventId([1; 32]),
            pubkey: [2; 32],
            created_at: 1,
            kind: ANNOUNCEMENT,
            tags: tags.collect(),
            content: String::new(),
            sig: [0; 64],
        };
        Announcement::of(&event).expect("an announcement")
    }

    fn own() -> Vec<String> {
        vec!["git.example.com".to_owned()]
    }

    #[test]
    fn targets_are_relays_and_servers_once_each_in_order_without_our_own() {
        let read = announcement(&[
            &["d", "x"],
            &[
                "relays",
                "wss://B.test/",
                "wss://git.example.com",
                "wss://a.test/chat/",
                "http://no.test",
            ],
            &[
                "clone",
                "https://c.test:8443/n/x.git",
                "http://b.test/x",
                "https://b.test/y",
                "ssh://d.test/x",
            ],
            &["clone", "https://git.example.com/n/x.git"],
        ]);
        let targets = read.targets(&own());
        let targets: Vec<&str> = targets.iter().map(UpstreamUrl::as_str).collect();
        let wanted = ["wss://b.test", "wss://a.test/chat", "wss://c.test:8443", "ws://b.test"];
        assert_eq!(targets, wanted);
        assert_eq!(read.clone_tags, 2);
        assert!(read.names(&own()));
    }

    #[test]
    fn a_host_that_only_contains_our_name_is_not_ours() {
        for host in ["evil-git.example.com", "git.example.com.evil", "evil.test/git.example.com"] {
            let (relay, clone) = (format!("wss://{host}"), format!("https://{host}/n/x.git"));
            let read = announcement(&[&["d", "x"], &["relays", &relay], &["clone", &clone]]);
            assert!(!read.names(&own()), "{host}");
            assert!(!read.targets(&own()).is_empty(), "{host} is followed");
        }
    }

    #[test]
    fn both_a_clone_url_and_a_relay_must_name_us() {
        let (ours, other) = ("wss://git.example.com", "wss://b.test");
        let clone: &[&str] = &["clone", "https://git.example.com/n/x.git"];
        assert!(announcement(&[&["d", "x"], &["relays", other, ours], clone]).names(&own()));
        assert!(!announcement(&[&["d", "x"], &["relays", other], clone]).names(&own()));
        assert!(!announcement(&[&["d", "x"], &["relays", ours]]).names(&own()));
    }

    #[test]
    fn an_identifier_that_cannot_be_a_folder_gives_no_address() {
        for identifier in ["", ".", "..", "a/b", "a\\b", "a\0b"] {
            assert_eq!(announcement(&[&["d", identifier]]).address, None, "{identifier:?}");
        }
        assert!(announcement(&[&["d", "a b:c 🦀"]]).address.is_some());
    }
}
