//! Which upstreams hold an event: the first one is a number in the event's row, further ones have rows.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use tender_jobs::mirror::{
    event::{self, Batch, Event, outgoing},
    filter::Filter,
    upstream,
};
use uuid::Uuid;

use crate::{event_store::event, support::mirror::MirrorWorld};

struct Store {
    world: MirrorWorld,
    upstreams: Vec<Uuid>,
    events: Vec<Event>,
}

impl Store {
    /// Two upstreams that take events, and one that only sends them.
    async fn new() -> Self {
        let world = MirrorWorld::new().await;
        let mut upstreams = Vec::new();
        for (url, direction) in
            [("ws://a.test", "both"), ("ws://b.test", "both"), ("ws://c.test", "down")]
        {
            upstreams.push(world.upstream(url, json!({"direction": direction})).await.id);
        }
        let events = (1..=4).map(|number| event(number, 1, 1, i64::from(number), &[])).collect();
        Self { world, upstreams, events }
    }

    async fn store(&self, upstream: usize, events: &[usize]) {
        let events: Vec<Event> = events.iter().map(|event| self.events[*event].clone()).collect();
        event::store(&self.world.db, Batch::new(self.upstreams[upstream], &events)).await.unwrap();
    }

    async fn known(&self, upstream: usize, event: usize) {
        let ids = [self.events[event].id];
        event::known(&self.world.db, self.upstreams[upstream], &ids).await.unwrap();
    }

    /// A reconciliation that begins now finds that the upstream lacks the event.
    async fn lost(&self, upstream: usize, event: usize) {
        let now = self.one("select clock_timestamp()").await;
        self.lost_since(upstream, event, now).await;
    }

    async fn lost_since(&self, upstream: usize, event: usize, begun: DateTime<Utc>) {
        let ids = [self.events[event].id];
        outgoing::lost(&self.world.db, self.upstreams[upstream], Some(begun), &ids).await.unwrap();
    }

    async fn reset(&self, upstream: usize) {
        upstream::reset(&self.world.db, Some(self.upstreams[upstream]), None).await.unwrap();
    }

    /// The events that the upstream should get, as the store knows.
    async fn wanted(&self, upstream: usize) -> BTreeSet<usize> {
        self.wanted_by(self.upstreams[upstream]).await
    }

    async fn wanted_by(&self, upstream: Uuid) -> BTreeSet<usize> {
        let (db, all) = (&self.world.db, Filter::default());
        let found = outgoing::candidates(db, upstream, &all, None, 0, 100).await.unwrap();
        let place = |one: &outgoing::Candidate| {
            self.events.iter().position(|event| event.id == one.event.id)
        };
        found.events.iter().filter_map(place).collect()
    }

    async fn one<T>(&self, query: &'static str) -> T
    where
        T: for<'r> sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres> + Send + Unpin,
    {
        sqlx::query_scalar(query).fetch_one(&self.world.db).await.unwrap()
    }
}

const ROWS: &str = "select count(*) from event_source";
const SOURCES: &str = "select count(source) from event";

#[tokio::test]
async fn only_further_upstreams_have_a_row() {
    let store = Store::new().await;
    store.store(0, &[0, 1]).await;
    store.store(2, &[2]).await;
    assert_eq!((store.one::<i64>(SOURCES).await, store.one::<i64>(ROWS).await), (2, 0));
    store.store(0, &[0, 1]).await;
    store.known(0, 0).await;
    assert_eq!(store.one::<i64>(ROWS).await, 0, "what is known already");
    store.store(1, &[0, 3]).await;
    store.known(1, 2).await;
    assert_eq!((store.one::<i64>(SOURCES).await, store.one::<i64>(ROWS).await), (3, 2));
    assert_eq!(store.wanted(0).await, BTreeSet::from([2, 3]));
    assert_eq!(store.wanted(1).await, BTreeSet::from([1]));
}

#[tokio::test]
async fn an_upstream_with_another_address_or_that_is_removed_is_the_source_of_nothing() {
    let store = Store::new().await;
    let (db, first) = (&store.world.db, store.upstreams[0]);
    store.store(0, &[0, 1]).await;
    store.store(1, &[1, 2]).await;
    let moved = upstream::find(db, first).await.unwrap().unwrap();
    store.world.change_upstream(&moved, json!({"url": "ws://moved.test"})).await;
    assert_eq!(store.wanted(0).await, BTreeSet::from([0, 1, 2]));
    assert_eq!(store.wanted(1).await, BTreeSet::from([0]), "others are not touched");
    store.store(0, &[3]).await;
    assert!(upstream::delete(db, first, None).await.unwrap());
    while upstream::remove_page(db, first).await.unwrap() {}
    let next = store.world.upstream("ws://moved.test", json!({"direction": "both"})).await.id;
    assert_eq!(
        store.wanted_by(next).await,
        BTreeSet::from([0, 1, 2, 3]),
        "no number is used twice"
    );
}

#[tokio::test]
async fn the_release_before_forgets_sources_too() {
    let store = Store::new().await;
    store.store(0, &[0]).await;
    let learned =
        "update upstream set exclusive_until_at = null, page_cap = null, page_cap_at = null";
    sqlx::query(learned).execute(&store.world.db).await.unwrap();
    assert_eq!(store.wanted(0).await, BTreeSet::new());
    let forgotten =
        "update upstream set authors_only_at = null, authors_only_reason = null where id = $1";
    sqlx::query(forgotten).bind(store.upstreams[0]).execute(&store.world.db).await.unwrap();
    assert_eq!(store.wanted(0).await, BTreeSet::from([0]));
}

#[tokio::test]
async fn a_loss_is_believed_only_of_what_was_held_before() {
    let store = Store::new().await;
    let begun = store.one("select clock_timestamp()").await;
    store.store(0, &[0]).await;
    store.lost_since(0, 0, begun).await;
    assert_eq!(store.one::<i64>(SOURCES).await, 1, "it came while the sets were compared");
    store.lost(0, 0).await;
    assert_eq!(store.one::<i64>(SOURCES).await, 0);
    assert_eq!(store.one::<i64>("select count(*) from upload_verdict").await, 1, "it waits");
    sqlx::query("delete from upload_verdict").execute(&store.world.db).await.unwrap();
    assert_eq!(store.wanted(0).await, BTreeSet::from([0]));
}

#[derive(Debug, Clone)]
enum Act {
    Store(usize, Vec<usize>),
    Known(usize, usize),
    Lost(usize, usize),
    Reset(usize),
}

fn act() -> impl Strategy<Value = Act> {
    let events = proptest::collection::vec(0_usize..4, 1..4);
    prop_oneof![
        4 => (0_usize..3, events).prop_map(|(upstream, events)| Act::Store(upstream, events)),
        2 => (0_usize..2, 0_usize..4).prop_map(|(upstream, event)| Act::Known(upstream, event)),
        2 => (0_usize..2, 0_usize..4).prop_map(|(upstream, event)| Act::Lost(upstream, event)),
        1 => (0_usize..2).prop_map(Act::Reset),
    ]
}

/// What the store should believe: the events that it has, and for each upstream those that it need not get.
#[derive(Debug, Default)]
struct Model {
    stored: BTreeSet<usize>,
    held: [BTreeSet<usize>; 3],
    waiting: [BTreeSet<usize>; 3],
}

impl Model {
    fn apply(&mut self, act: &Act) {
        match act {
            Act::Store(upstream, events) => {
                self.stored.extend(events);
                self.held[*upstream].extend(events);
            }
            Act::Known(upstream, event) if self.stored.contains(event) => {
                self.held[*upstream].insert(*event);
            }
            Act::Known(..) => {}
            Act::Lost(upstream, event) => {
                if self.held[*upstream].remove(event) {
                    self.waiting[*upstream].insert(*event);
                }
            }
            Act::Reset(upstream) => {
                self.held[*upstream].clear();
                self.waiting[*upstream].clear();
            }
        }
    }

    fn wanted(&self, upstream: usize) -> BTreeSet<usize> {
        &(&self.stored - &self.held[upstream]) - &self.waiting[upstream]
    }
}

#[test]
fn any_history_ends_with_each_upstream_lacking_what_it_was_not_seen_to_hold() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let store = runtime.block_on(Store::new());
    let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&proptest::collection::vec(act(), 1..14), |acts| {
        runtime.block_on(async {
            sqlx::query("truncate event, event_source, upload_verdict, lane cascade")
                .execute(&store.world.db)
                .await
                .unwrap();
            let mut model = Model::default();
            for act in &acts {
                match act {
                    Act::Store(upstream, events) => store.store(*upstream, events).await,
                    Act::Known(upstream, event) => store.known(*upstream, *event).await,
                    Act::Lost(upstream, event) => store.lost(*upstream, *event).await,
                    Act::Reset(upstream) => store.reset(*upstream).await,
                }
                model.apply(act);
            }
            for upstream in 0..2 {
                prop_assert_eq!(
                    store.wanted(upstream).await,
                    model.wanted(upstream),
                    "{}",
                    upstream
                );
            }
            Ok(())
        })
    });
    run.unwrap();
}
