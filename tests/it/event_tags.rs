//! Filters: the store finds by its indexes what a plain comparison finds in the events themselves.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    sample::select,
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use tender_jobs::{
    mirror::{
        event::{self, Batch, Event, EventId, Reason, Set, Stored, outgoing},
        filter::Filter,
    },
    queue::Settled,
};
use uuid::Uuid;

use crate::{
    event_store::{LIMITS, event, live},
    support::mirror::MirrorWorld,
};

/// Values that are equal, nearly equal, at the limit of 255 characters, and with U+0000 or what looks like it.
fn value() -> impl Strategy<Value = String> {
    let fixed = [
        "", "a", "A", "a b", "ä", "a\0", "\0", "\0\0b", "\\u0000", "\\\0", "\\", "\"", "%",
        "a\u{1}",
    ];
    let long = [("a", 255), ("a", 256), ("ä", 255), ("x", 256), ("\u{10000}", 255)];
    let fixed = fixed.into_iter().map(str::to_owned);
    select(
        fixed.chain(long.into_iter().map(|(text, times)| text.repeat(times))).collect::<Vec<_>>(),
    )
}

fn tag() -> impl Strategy<Value = Vec<String>> {
    let name = select(vec!["e", "t", "T", "d", "tt", "tags", "-x", "1", "é", "", "\0", "{"]);
    (name, proptest::collection::vec(value(), 0..3))
        .prop_map(|(name, values)| [vec![name.to_owned()], values].concat())
}

fn an_event() -> impl Strategy<Value = Event> {
    let kind = select(vec![0, 1, 1, 1, 5, 7, 30_023]);
    let content = select(vec!["", "text", "a\0b", "\\u0000"]);
    (0_u8..4, kind, 0_i64..6, proptest::collection::vec(tag(), 0..5), content).prop_map(
        |(author, kind, at, tags, content)| Event {
            tags,
            content: content.to_owned(),
            ..event(0, author, kind, at, &[])
        },
    )
}

fn a_filter() -> impl Strategy<Value = Filter> {
    let authors = proptest::collection::btree_set(
        (0_u8..5).prop_map(|author| hex::encode([author; 32])),
        0..3,
    );
    let kinds = proptest::collection::btree_set(select(vec![0_u16, 1, 5, 7, 30_023]), 0..3);
    let fits = value()
        .prop_filter("too long", |value| !value.contains('\0') && value.chars().count() < 256);
    let values = proptest::collection::btree_set(fits, 1..4);
    let tags = proptest::collection::btree_map(select(vec!['e', 't', 'T', 'd']), values, 0..3);
    (authors, kinds, tags).prop_map(|(authors, kinds, tags)| Filter {
        authors,
        kinds,
        tags,
        ..Filter::default()
    })
}

struct Store {
    world: MirrorWorld,
    from: Uuid,
    to: Uuid,
}

impl Store {
    async fn new() -> Self {
        let world = MirrorWorld::new().await;
        let from = world.upstream("ws://from.test", json!({})).await.id;
        let to = world.upstream("ws://to.test", json!({"direction": "both"})).await.id;
        Self { world, from, to }
    }

    /// Fills the emptied store; returns what it holds.
    async fn filled(&self, events: &[Event]) -> Vec<Event> {
        sqlx::query(
            "truncate event, event_head, event_source, known_id, deletion_mark, deletion_address",
        )
        .execute(&self.world.db)
        .await
        .unwrap();
        let stored = event::store(&self.world.db, Batch::new(self.from, events)).await.unwrap();
        let Settled::Written(stored) = stored else { panic!("the batch has no lease") };
        let refused = Stored::Refused(Reason::RefusedByStore);
        assert!(!stored.contains(&refused), "{stored:?} of {events:?}");
        // Half of the events with U+0000 are as earlier releases stored them.
        sqlx::query(
            "update event set tags = jsonb_build_array((tags->0) - 'tags')
             where jsonb_typeof(tags->0) = 'object' and position % 2 = 0",
        )
        .execute(&self.world.db)
        .await
        .unwrap();
        let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
        outgoing::by_ids(&self.world.db, &ids).await.unwrap()
    }

    async fn set(&self, filter: &Filter) -> BTreeSet<EventId> {
        let set = event::set(&self.world.db, self.from, filter, LIMITS, 0, 2_000_000_000);
        match set.await.unwrap() {
            Set::Items(items) => items.into_iter().map(|(_, id)| id).collect(),
            Set::TooLarge => panic!("the set is small"),
        }
    }

    async fn outgoing(&self, filter: &Filter) -> BTreeSet<EventId> {
        let found = outgoing::candidates(&self.world.db, self.to, filter, None, 0, 1000);
        found.await.unwrap().events.iter().map(|one| one.event.id).collect()
    }

    async fn tagged(&self, name: char, values: &BTreeSet<String>) -> BTreeSet<EventId> {
        let rows: Vec<(Vec<u8>,)> = sqlx::query_as("select id from events_tagged(array[$1], $2)")
            .bind(name.to_string())
            .bind(values.iter().cloned().collect::<Vec<_>>())
            .fetch_all(&self.world.db)
            .await
            .unwrap();
        let ids: BTreeSet<_> =
            rows.iter().map(|(id,)| EventId(id[..].try_into().unwrap())).collect();
        assert_eq!(ids.len(), rows.len(), "an event is found once");
        ids
    }
}

fn matching(events: &[Event], filter: &Filter) -> BTreeSet<EventId> {
    events.iter().filter(|event| filter.matches(event)).map(|event| event.id).collect()
}

async fn compare(store: &Store, events: &[Event], filters: &[Filter]) -> Result<(), TestCaseError> {
    let held = store.filled(events).await;
    let all: BTreeSet<EventId> = held.iter().map(|event| event.id).collect();
    let live = live(&store.world).await;
    for filter in filters {
        let wanted = matching(&held, filter);
        let set = store.set(filter).await;
        prop_assert_eq!(&(&set & &all), &wanted, "the set of {:?}", filter);
        prop_assert_eq!(store.outgoing(filter).await, &wanted & &live, "uploads of {:?}", filter);
        for (name, values) in &filter.tags {
            let tags = BTreeMap::from([(*name, values.clone())]);
            let wanted = matching(&held, &Filter { tags, ..Filter::default() });
            prop_assert_eq!(store.tagged(*name, values).await, wanted, "{} {:?}", name, values);
        }
    }
    Ok(())
}

fn any_filter_finds_what_a_comparison_finds(cases: u32, change: &'static str) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::new());
    runtime.block_on(async { sqlx::raw_sql(change).execute(&store.world.db).await.unwrap() });
    let case =
        (proptest::collection::vec(an_event(), 1..20), proptest::collection::vec(a_filter(), 1..6));
    let config = Config { cases, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&case, |(mut events, filters)| {
        for (number, event) in (0_u8..).zip(&mut events) {
            event.id.0[1] = number + 1;
        }
        runtime.block_on(compare(&store, &events, &filters))
    });
    run.unwrap();
}

#[test]
fn any_filter_finds_the_events_that_it_matches() {
    any_filter_finds_what_a_comparison_finds(60, "");
}

#[test]
fn tags_with_the_same_key_are_told_apart() {
    any_filter_finds_what_a_comparison_finds(
        20,
        "create or replace function tag_keys(tags jsonb) returns bigint[]
             language sql immutable return array[1::bigint];
         create or replace function tag_keys(names text[], vals text[]) returns bigint[]
             language sql immutable return array[1::bigint];
         reindex index event_tags_idx",
    );
}

/// An event with much U+0000 is small in memory and in the store, and large as JSON.
#[tokio::test]
async fn events_full_of_nul_are_stored_and_searched_at_once() {
    let store = Store::new().await;
    let events: Vec<Event> = (0..60)
        .map(|n| Event {
            content: "\0".repeat(43_000),
            ..event(n, 1, 1, i64::from(n), &[("t", "x".to_owned())])
        })
        .collect();
    for batch in events.chunks(20) {
        event::store(&store.world.db, Batch::new(store.from, batch)).await.unwrap();
    }
    let found = |value: &str| Filter {
        tags: [('t', [value.to_owned()].into())].into(),
        ..Filter::default()
    };
    assert_eq!(store.set(&found("x")).await.len(), 60);
    assert_eq!(store.set(&found("y")).await.len(), 0);
}
