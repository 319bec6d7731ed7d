//! Signed events with the mix of a real relay: 30 % replaceable or addressable with versions, 2 % deletions, 10 % with
//! twenty tags, contents of 10 B to 60 kB. `benches/bytes/mix.sql` makes the same mix without signatures.

use std::collections::{HashMap, HashSet};

use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};

const AUTHORS: usize = 1000;
/// The identifiers of an author's addressable events of one kind.
const ITEMS: usize = 10;

/// The oldest events, which delete nothing: each deletion names an older event.
const DELETABLE: usize = 1000;

/// Events of the mix.
pub(crate) struct Mix {
    /// All of them, with every version, newest first; no two are of the same second and author.
    pub(crate) events: Vec<Event>,
    /// The ids of those that a store ends with: neither superseded nor deleted.
    pub(crate) live: HashSet<String>,
    /// The number of bytes of their JSON.
    pub(crate) bytes: usize,
}

/// Makes events that are spread evenly over `seconds` before `until`, and signs them on all cores.
pub(crate) fn mix(count: usize, until: i64, seconds: i64) -> Mix {
    let keys: Vec<Keys> = (0..AUTHORS).map(|_| Keys::generate()).collect();
    let step = seconds / i64::try_from(count).unwrap();
    assert!(step > 0, "each event has a second of its own");
    let at = |index: usize| until - i64::try_from(index).unwrap() * step;
    let is_deletion = |index: usize| index + DELETABLE < count && random(index, 0) % 100 < 2;
    let plain =
        in_parallel(count, |index| (!is_deletion(index)).then(|| plain(&keys, index, at(index))));
    let events = in_parallel(count, |index| {
        plain[index].clone().or_else(|| Some(deletion(&keys, index, at(index), &plain)))
    });
    let events: Vec<Event> = events.into_iter().flatten().collect();
    let bytes = events.iter().map(|event| serde_json::to_string(event).unwrap().len()).sum();
    Mix { live: live(&events), events, bytes }
}

/// Calls `make` with every index, on all cores.
fn in_parallel<T: Send>(count: usize, make: impl Fn(usize) -> T + Sync) -> Vec<T> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (part, make) = (count.div_ceil(cores), &make);
    std::thread::scope(|scope| {
        let range = |core: usize| (core * part).min(count)..((core + 1) * part).min(count);
        let parts = (0..cores).map(|core| scope.spawn(move || range(core).map(make).collect()));
        let parts: Vec<_> = parts.collect();
        parts.into_iter().flat_map(|part| -> Vec<T> { part.join().unwrap() }).collect()
    })
}

/// A number that depends on the index and on what it is drawn for: splitmix64.
fn random(index: usize, purpose: u64) -> usize {
    let mut word = (index as u64).wrapping_mul(16).wrapping_add(purpose);
    word = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    ((word ^ (word >> 31)) >> 8) as usize
}

/// A few authors write most of the events.
fn author(index: usize) -> usize {
    let share = (random(index, 1) % 9973) as f64 / 9973.0;
    (share.powi(3) * AUTHORS as f64) as usize
}

fn kind(index: usize) -> u16 {
    match 2 + random(index, 0) % 98 {
        2..7 => 0,
        7..9 => 3,
        9..12 => 10_002,
        12..22 => 30_023,
        22..32 => 30_078,
        32..52 => 7,
        52..60 => 6,
        _ => 1,
    }
}

fn content(index: usize) -> String {
    let (draw, size) = (random(index, 2), random(index, 3));
    let bytes = match draw % 1000 {
        0..850 => 10 + size % 100,
        850..997 => 150 + size % 600,
        _ => 2000 + (((size % 997) as f64 / 997.0).powi(6) * 58_000.0) as usize,
    };
    let text = format!("{index} what somebody wrote, and more of it; ");
    text.repeat(1 + bytes / text.len())[..bytes].to_owned()
}

fn tags(keys: &[Keys], index: usize) -> Vec<Tag> {
    let draw = random(index, 4);
    let count =
        if draw.is_multiple_of(10) { 20 } else { [0, 1, 1, 1, 1, 2, 2, 3, 4][draw / 10 % 9] };
    let one = |number: usize| {
        let other = random(index, 5 + number as u64 % 5);
        let event = format!("{other:064x}");
        let person = keys[other % AUTHORS].public_key().to_hex();
        match number % 4 {
            0 => Tag::parse(["e", event.as_str(), "", "reply"]),
            1 => Tag::parse(["p", person.as_str()]),
            2 => Tag::parse(["e", event.as_str()]),
            _ => Tag::parse(["t", format!("topic{}", other % 997).as_str()]),
        }
        .unwrap()
    };
    (0..count).map(one).collect()
}

fn sign(keys: &Keys, kind: u16, at: i64, content: String, tags: Vec<Tag>) -> Event {
    EventBuilder::new(Kind::from(kind), content)
        .tags(tags)
        .custom_created_at(Timestamp::from(u64::try_from(at).unwrap()))
        .finalize(keys)
        .unwrap()
}

fn plain(keys: &[Keys], index: usize, at: i64) -> Event {
    let (kind, mut tags) = (kind(index), tags(keys, index));
    if kind >= 30_000 {
        let item = format!("item{}", random(index, 11) % ITEMS);
        tags.push(Tag::parse(["d", item.as_str()]).unwrap());
    }
    sign(&keys[author(index)], kind, at, content(index), tags)
}

/// A deletion of an older event by its author: by id if the event has no versions, else by address, because the end of
/// a store that loses a version by its id depends on the order of arrival.
fn deletion(keys: &[Keys], index: usize, at: i64, plain: &[Option<Event>]) -> Event {
    let mut older = index + 1 + random(index, 12) % (DELETABLE / 2)..plain.len();
    let (older, event) = older.find_map(|one| Some((one, plain[one].as_ref()?))).unwrap();
    let id = event.id.to_hex();
    let tag = match address(event) {
        Some(address) => Tag::parse(["a", address.as_str()]),
        None => Tag::parse(["e", id.as_str()]),
    };
    sign(&keys[author(older)], 5, at, String::new(), vec![tag.unwrap()])
}

/// The address of a replaceable or addressable event.
fn address(event: &Event) -> Option<String> {
    let (kind, author) = (event.kind.as_u16(), event.pubkey.to_hex());
    match kind {
        0 | 3 | 10_000..20_000 => Some(format!("{kind}:{author}:")),
        30_000.. => {
            let item = event.tags.iter().find(|tag| tag.as_slice()[0] == "d").unwrap();
            Some(format!("{kind}:{author}:{}", item.as_slice()[1]))
        }
        _ => None,
    }
}

/// Returns the ids of the events that are neither superseded nor deleted (NIP-01, NIP-09).
fn live(events: &[Event]) -> HashSet<String> {
    let (mut deleted, mut until) = (HashSet::new(), HashMap::new());
    for event in events.iter().filter(|event| event.kind.as_u16() == 5) {
        let tag = event.tags.iter().next().unwrap().as_slice();
        if tag[0] == "e" {
            deleted.insert(tag[1].clone());
        } else {
            let latest = until.entry(tag[1].clone()).or_insert(event.created_at);
            *latest = event.created_at.max(*latest);
        }
    }
    let mut heads = HashSet::new();
    let is_live = |event: &&Event| match address(event) {
        // The events are in the order of time, newest first.
        Some(address) => {
            let is_deleted = until.get(&address).is_some_and(|until| event.created_at <= *until);
            heads.insert(address) && !is_deleted
        }
        None => !deleted.contains(&event.id.to_hex()),
    };
    events.iter().filter(is_live).map(|event| event.id.to_hex()).collect()
}
