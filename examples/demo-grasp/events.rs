//! The events of the demo: 300 repositories, a hundred on each relay of the chain.

use std::collections::HashSet;

use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};

/// Issues, patches and pull requests of a repository.
const ROOTS: usize = 10;
/// Repositories that also name the relay that never answers and the one that lies.
const TROUBLED: usize = 10;

/// The events, by the relay that holds them at the beginning.
pub(crate) struct Events {
    pub(crate) own: Vec<Event>,
    pub(crate) a: Vec<Event>,
    pub(crate) b: Vec<Event>,
    pub(crate) c: Vec<Event>,
    hosts: Vec<(String, String)>,
}

/// How much there is.
#[derive(Clone, Copy)]
pub(crate) struct Size {
    /// Repositories on each relay of the chain.
    pub(crate) each: usize,
    /// All events together, about.
    pub(crate) total: usize,
}

/// What every event is made of.
struct Author {
    keys: Vec<Keys>,
    /// The second of the next event.
    at: i64,
}

impl Events {
    /// `urls` are those of the service, A, B, C, and the two troubled relays.
    pub(crate) fn create(now: i64, urls: &[String; 6], size: Size) -> Self {
        let [own, a, b, c, silent, liar] = urls;
        let keys = (0..12).map(|_| Keys::generate()).collect();
        let mut author = Author { keys, at: now - 40_000 };
        let mut lists: [Vec<Event>; 4] = Default::default();
        for (step, relay) in [a, b, c].into_iter().enumerate() {
            for number in 0..size.each {
                let mut named = vec![own.as_str(), relay.as_str()];
                if step == 0 && number < TROUBLED {
                    named.extend([silent.as_str(), liar.as_str()]);
                }
                let name = format!("{}-{number}", ["first", "second", "third"][step]);
                let (announcement, address) = author.announce(&name, &named);
                // The relay before it in the chain has the announcement.
                lists[step].push(announcement);
                author.talk(&address, &name, size, &mut lists[step + 1]);
            }
        }
        let [at_own, at_a, at_b, at_c] = lists;
        let names = ["A", "B", "C", "silent", "liar"];
        let hosts = names.into_iter().map(str::to_owned).zip(urls[1..].iter().cloned());
        let hosts = hosts.map(|(name, url)| (url, name)).collect();
        Self { own: at_own, a: at_a, b: at_b, c: at_c, hosts }
    }

    /// The number of events that the service should hold at the end.
    pub(crate) fn total(&self) -> usize {
        self.ids().len()
    }

    /// The ids of all events, in hex.
    pub(crate) fn ids(&self) -> HashSet<String> {
        let lists = [&self.own, &self.a, &self.b, &self.c];
        lists.into_iter().flatten().map(|event| event.id.to_hex()).collect()
    }

    /// The addresses of the followed relays, and their names.
    pub(crate) fn hosts(&self) -> Vec<(String, String)> {
        self.hosts.clone()
    }
}

impl Author {
    fn event(&mut self, who: usize, kind: u16, content: String, tags: Vec<Vec<&str>>) -> Event {
        self.at += 1;
        let tags = tags.into_iter().filter_map(|tag| Tag::parse(tag).ok());
        let at = Timestamp::from(u64::try_from(self.at).unwrap_or_default());
        let builder = EventBuilder::new(Kind::from(kind), content).tags(tags).custom_created_at(at);
        let signed = builder.finalize(&self.keys[who % self.keys.len()]);
        signed.unwrap_or_else(|error| panic!("a complete event can be signed: {error}"))
    }

    /// The announcement of a repository, and its address.
    fn announce(&mut self, name: &str, relays: &[&str]) -> (Event, String) {
        let owner = self.keys[0].public_key().to_hex();
        let host = relays[0].trim_start_matches("ws://");
        let clone = format!("http://{host}/{owner}/{name}.git");
        let named = [&["relays"], relays].concat();
        let tags = vec![vec!["d", name], vec!["clone", &clone], named];
        (self.event(0, 30617, String::new(), tags), format!("30617:{owner}:{name}"))
    }

    /// What people say about a repository: its state, roots, and comments on each root.
    fn talk(&mut self, address: &str, name: &str, size: Size, into: &mut Vec<Event>) {
        into.push(self.event(0, 30618, String::new(), vec![vec!["d", name]]));
        let comments = (size.total / (3 * size.each)).saturating_sub(2 + ROOTS).div_ceil(ROOTS);
        for number in 0..ROOTS {
            let kind = [1621, 1617, 1618][number % 3];
            let root =
                self.event(number, kind, format!("{name} {number}"), vec![vec!["a", address]]);
            let id = root.id.to_hex();
            into.push(root);
            for comment in 0..comments {
                let tags = vec![vec!["E", &id], vec!["e", &id]];
                into.push(self.event(comment, 1111, format!("comment {comment}"), tags));
            }
        }
    }
}
