//! Events of repositories: announcements, roots, and what people say about them.

use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};

/// The roots of a repository.
const ROOTS: usize = 20;

pub(crate) struct Talk {
    keys: Keys,
    host: String,
    own: String,
    now: u64,
}

impl Talk {
    /// Events of repositories that the service at `own` hosts.
    pub(crate) fn new(own: &str) -> Self {
        let host = own.split_once("://").map_or(own, |(_, host)| host).to_owned();
        let now = Timestamp::now().as_secs();
        Self { keys: Keys::generate(), host, own: own.to_owned(), now }
    }

    fn event(
        &self,
        keys: &Keys,
        kind: u16,
        back: u64,
        content: String,
        tags: Vec<Vec<&str>>,
    ) -> Event {
        EventBuilder::new(Kind::from(kind), content)
            .tags(tags.into_iter().map(|tag| Tag::parse(tag).unwrap()))
            .custom_created_at(Timestamp::from(self.now - 60 - back))
            .finalize(keys)
            .unwrap()
    }

    fn announcement(&self, name: &str, relays: &[String], back: u64) -> Event {
        let clone = format!("http://{}/{}/{name}.git", self.host, self.keys.public_key().to_hex());
        let mut named = vec!["relays", self.own.as_str()];
        named.extend(relays.iter().map(String::as_str));
        let tags = vec![vec!["d", name], vec!["clone", &clone], named];
        self.event(&self.keys, 30617, back, String::new(), tags)
    }

    fn address(&self, name: &str) -> String {
        format!("30617:{}:{name}", self.keys.public_key().to_hex())
    }

    /// One announcement for each number.
    pub(crate) fn announcements(
        &self,
        count: usize,
        relays: impl Fn(usize) -> Vec<String>,
    ) -> Vec<Event> {
        (0..count)
            .map(|number| {
                self.announcement(&format!("many-{number}"), &relays(number), number as u64)
            })
            .collect()
    }

    /// Announcements of `count` repositories that name a relay, and `events` events of them, signed on
    /// all cores.
    pub(crate) fn repositories(
        &self,
        relay: usize,
        count: usize,
        events: usize,
        url: &str,
    ) -> (Vec<Event>, Vec<Event>) {
        // No two repositories change in the same seconds.
        let names: Vec<(String, u64)> = (0..count)
            .map(|number| (format!("r{relay}-{number}"), 977 * (number + 1) as u64))
            .collect();
        let announcements = names
            .iter()
            .map(|(name, back)| self.announcement(name, &[url.to_owned()], 4_000_000 + back))
            .collect();
        let each = events / count;
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let part = count.div_ceil(cores);
        let talk = std::thread::scope(|scope| {
            let threads: Vec<_> = names
                .chunks(part)
                .map(|names| {
                    scope.spawn(move || {
                        names.iter().flat_map(|(name, back)| self.talk(name, *back, each)).collect()
                    })
                })
                .collect();
            threads.into_iter().flat_map(|one| -> Vec<Event> { one.join().unwrap() }).collect()
        });
        (announcements, talk)
    }

    /// Roots of all kinds with comments of many sizes, a state, and statuses.
    fn talk(&self, name: &str, back: u64, count: usize) -> Vec<Event> {
        assert!(count > ROOTS, "a repository has at least a state and its roots");
        let (address, others) = (self.address(name), Keys::generate());
        let mut events =
            vec![self.event(&self.keys, 30618, back, String::new(), vec![vec!["d", name]])];
        let roots: Vec<Event> = (0..ROOTS)
            .map(|number| {
                let kind = [1621, 1617, 1618][number % 3];
                let text = "line of a patch\n".repeat(1 + number * 20);
                self.event(
                    &others,
                    kind,
                    3_000_000 + back - number as u64,
                    text,
                    vec![vec!["a", &address]],
                )
            })
            .collect();
        let ids: Vec<String> = roots.iter().map(|root| root.id.to_hex()).collect();
        events.extend(roots);
        for number in 0..count - 1 - ROOTS {
            let root = ids[number % ROOTS].as_str();
            let text = "a word ".repeat(5 + number % 60);
            let (kind, tags) = match number % 10 {
                0 => (1630, vec![vec!["e", root, "", "root"], vec!["a", &address]]),
                _ => (1111, vec![vec!["E", root], vec!["e", root], vec!["K", "1621"]]),
            };
            let back = 2_900_000 + back - number as u64 * 7;
            events.push(self.event(&others, kind, back, text, tags));
        }
        events
    }

    /// Issues of the first repository of a relay, created now.
    pub(crate) fn issues(&self, relay: usize, count: usize) -> Vec<Event> {
        let address = self.address(&format!("r{relay}-0"));
        let others = Keys::generate();
        (0..count)
            .map(|number| {
                let text = format!("issue {number}");
                self.event(&others, 1621, 0, text, vec![vec!["a", &address]])
            })
            .collect()
    }
}
