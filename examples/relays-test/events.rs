//! The events of a run: all kinds, all sizes, versions, deletions, and a second that holds more events
//! than a page.

use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};

/// The seconds over which the events of a history are spread.
const HISTORY: u64 = 30 * 86_400;
/// The events that one second holds.
const DENSE: usize = 600;
/// The authors.
const AUTHORS: usize = 20;

/// Returns new authors.
pub(crate) fn authors() -> Vec<Keys> {
    (0..AUTHORS).map(|_| Keys::generate()).collect()
}

/// Makes `count` events of the last 30 days.
pub(crate) fn history(count: usize, authors: &[Keys]) -> Vec<Event> {
    make(count, authors, Timestamp::now().as_secs() - 60, HISTORY)
}

/// Makes `count` events of the next seconds: they are newer than every open subscription.
pub(crate) fn fresh(count: usize, authors: &[Keys]) -> Vec<Event> {
    make(count, authors, Timestamp::now().as_secs() + 21, 20)
}

fn make(count: usize, authors: &[Keys], end: u64, spread: u64) -> Vec<Event> {
    let before = |index: usize| {
        u64::try_from(index).unwrap_or_default() * spread / u64::try_from(count.max(1)).unwrap_or(1)
    };
    let mut events = Vec::<Event>::with_capacity(count);
    for index in 0..count {
        let at = end
            - match index {
                index if (1000..1000 + DENSE).contains(&index) => before(1000),
                index => before(index),
            };
        let author = &authors[index % authors.len()];
        let event = one(index, events.get(index.saturating_sub(AUTHORS)), author);
        let event = event.custom_created_at(Timestamp::from(at)).finalize(author);
        events.push(event.expect("an event without unusual fields can be signed"));
    }
    events
}

/// The event of an index. A deletion names `earlier`, if that is by the same author.
fn one(index: usize, earlier: Option<&Event>, author: &Keys) -> EventBuilder {
    match index % 50 {
        0..=9 => versioned(index, &[0, 3, 10_002, 10_050], None),
        10..=14 => versioned(index, &[30_023, 30_311, 34_550], Some(index % 40)),
        15 => deletion(index, earlier, author),
        16..=20 => tagged(index),
        21 => EventBuilder::new(Kind::from(1), "x".repeat(60_000)),
        22 => EventBuilder::new(
            Kind::from(1),
            text(index, "\u{7f} \u{1} \" \\ \n & < > é 🦀 \u{2028}"),
        ),
        index_in => {
            let kinds = [1, 6, 7, 9, 16, 1111, 1984, 9735, 1063, 42];
            EventBuilder::new(Kind::from(kinds[index_in % kinds.len()]), text(index, ""))
                .tag(tag(&["t", "test"]))
        }
    }
}

fn versioned(index: usize, kinds: &[u16], d: Option<usize>) -> EventBuilder {
    let builder = EventBuilder::new(Kind::from(kinds[index % kinds.len()]), text(index, "version"));
    match d {
        Some(d) => builder.tag(tag(&["d", &format!("article-{d}")])),
        None => builder,
    }
}

fn deletion(index: usize, earlier: Option<&Event>, author: &Keys) -> EventBuilder {
    let builder = EventBuilder::new(Kind::from(5), text(index, "deleted"));
    match earlier.filter(|earlier| earlier.pubkey == author.public_key()) {
        Some(earlier) => builder.tag(tag(&["e", &earlier.id.to_hex()])),
        None => builder.tag(tag(&["a", &format!("30023:{}:none", author.public_key().to_hex())])),
    }
}

fn tagged(index: usize) -> EventBuilder {
    let tags =
        (0..20).map(|tag_index| tag(&["r", &format!("https://example.com/{index}/{tag_index}")]));
    EventBuilder::new(Kind::from(1), text(index, "")).tags(tags)
}

fn text(index: usize, more: &str) -> String {
    format!("event {index} {more} {}", "of usual length ".repeat(index % 30))
}

fn tag(values: &[&str]) -> Tag {
    Tag::parse(values.iter().copied()).expect("a tag with a name is valid")
}
