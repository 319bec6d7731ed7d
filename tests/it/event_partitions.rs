//! The first step towards a store of a billion events (ADR 29): the statements of the store, as they are, have the
//! same results if the table is in partitions by time.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::json;
use sha2::{Digest, Sha256};
use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        event::{self, Batch, Event, EventId, Limits, Set, Stored, outgoing},
        filter::Filter,
        upstream::Upstream,
    },
    queue::Settled,
};

use crate::{event_bytes::fill, support::mirror::MirrorWorld};

const LIMITS: Limits = Limits { bytes: 1_000_000, tags: 2000 };
const BEGIN: i64 = 1_700_000_000;
const DAY: i64 = 86_400;
/// About twenty days of the mix, in batches.
const EVENTS: i64 = 2000;
const BATCH: usize = 250;

/// A ledger, whose table of events is whole or in partitions.
struct Store {
    world: MirrorWorld,
    from: Upstream,
    to: Upstream,
}

impl Store {
    async fn whole() -> Self {
        let world = MirrorWorld::new().await;
        let from = world.upstream("ws://a.test", json!({"direction": "both"})).await;
        let to = world.upstream("ws://b.test", json!({"direction": "up"})).await;
        Self { world, from, to }
    }

    async fn in_partitions() -> Self {
        let store = Self::whole().await;
        sqlx::raw_sql(include_str!("partitioned.sql")).execute(&store.world.db).await.unwrap();
        store
    }

    async fn store(&self, events: &[Event]) -> Vec<Stored> {
        let stored = event::store(&self.world.db, Batch::new(self.from.id, events)).await.unwrap();
        let Settled::Written(outcomes) = stored else { panic!("the batch has no lease") };
        outcomes
    }

    /// Everything that the store answers, in a form that can be compared.
    async fn answers(&self, events: &[Event]) -> Vec<String> {
        let db = &self.world.db;
        let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
        let mut answers = vec![
            format!("known {:?}", sorted(event::known(db, self.to.id, &ids).await.unwrap().ids)),
            format!(
                "found {:?}",
                sorted(outgoing::by_ids(db, &ids).await.unwrap().iter().map(|e| e.id))
            ),
            format!("start {:?}", self.named(&ids[0]).await),
            format!("heads {}", rows(db, HEADS).await),
            format!("marks {}", rows(db, MARKS).await),
            format!("events {}", rows(db, ROWS).await),
        ];
        for filter in filters(events) {
            for (since, until) in [(0, i64::MAX), (BEGIN + 3 * DAY, BEGIN + 5 * DAY)] {
                answers.push(format!("set {since} {:?}", self.set(&filter, since, until).await));
            }
            let found = outgoing::candidates(db, self.to.id, &filter, None, 0, 1000).await.unwrap();
            let sent = found.events.iter().map(|one| one.event.id.to_string());
            answers.push(format!("uploads {:?} {}", sent.collect::<Vec<_>>(), found.more));
        }
        answers
    }

    async fn named(&self, id: &EventId) -> Vec<String> {
        let found = event::starting_with(&self.world.db, &id.to_string()[..10], 10).await.unwrap();
        found.into_iter().map(|event| event.id).collect()
    }

    async fn set(&self, filter: &Filter, since: i64, until: i64) -> Vec<EventId> {
        let set = event::set(&self.world.db, self.to.id, filter, LIMITS, since, until);
        match set.await.unwrap() {
            Set::Items(items) => sorted(items.into_iter().map(|(_, id)| id)),
            Set::TooLarge => panic!("the set is small"),
        }
    }
}

const HEADS: &str =
    "select string_agg(encode(id, 'hex') || created_at || kind, ',' order by id) from event_head";
const MARKS: &str = "select concat((select string_agg(encode(target, 'hex'), ',' order by target) from deletion_mark),
    (select string_agg(reason || encode(event_id, 'hex'), ',' order by event_id) from known_id),
    (select string_agg(concat(kind, ':', live, ':', stored), ',' order by kind) from
        (select kind, sum(live) as live, sum(stored) as stored
         from (select * from kind_count union all select * from kind_change) counts group by kind) kinds))";
const ROWS: &str = "select string_agg(concat(encode(id, 'hex'), created_at, kind, d_tag, delete_reason, expires_at, source is null),
    ',' order by id) from event";

async fn rows(db: &PgPool, query: &'static str) -> String {
    sqlx::query_scalar::<_, Option<String>>(query).fetch_one(db).await.unwrap().unwrap_or_default()
}

fn sorted(ids: impl IntoIterator<Item = EventId>) -> Vec<EventId> {
    ids.into_iter().collect::<BTreeSet<_>>().into_iter().collect()
}

/// The events of the mix, with a deletion of every fiftieth that deletes what its author wrote, in an order that
/// mixes times, and with copies.
async fn events() -> Vec<Event> {
    let source = MirrorWorld::new().await;
    fill(&source.db, EVENTS).await;
    let ids: Vec<Vec<u8>> =
        sqlx::query_scalar("select id from event order by id").fetch_all(&source.db).await.unwrap();
    let ids: Vec<EventId> = ids.into_iter().map(|id| EventId(id.try_into().unwrap())).collect();
    let mut events = outgoing::by_ids(&source.db, &ids).await.unwrap();
    // Over twenty days.
    for event in &mut events {
        event.created_at = BEGIN + (event.created_at - BEGIN) * 80 % (22 * DAY);
    }
    let deletions: Vec<Event> = events.iter().step_by(50).map(deletion).collect();
    events.extend(deletions);
    events.sort_by_key(|event| Sha256::digest(event.id.0).to_vec());
    let copies = events[..100].to_vec();
    events.extend(copies);
    events
}

fn deletion(of: &Event) -> Event {
    Event {
        id: EventId(Sha256::digest(of.id.0).into()),
        kind: 5,
        tags: vec![vec!["e".to_owned(), of.id.to_string()]],
        created_at: of.created_at + 1,
        ..of.clone()
    }
}

fn filters(events: &[Event]) -> Vec<Filter> {
    let topic = BTreeSet::from(["topic5", "topic6"].map(str::to_owned));
    let author = BTreeSet::from([hex::encode(events[0].pubkey)]);
    vec![
        Filter::default(),
        Filter { kinds: BTreeSet::from([1, 5]), ..Filter::default() },
        Filter { tags: BTreeMap::from([('t', topic)]), ..Filter::default() },
        Filter { authors: author, ..Filter::default() },
    ]
}

async fn assert_same(whole: &Store, parts: &Store, events: &[Event]) {
    let answers = whole.answers(events).await.into_iter().zip(parts.answers(events).await);
    for (whole, parts) in answers {
        assert_eq!(whole, parts);
    }
}

#[tokio::test]
async fn a_store_in_partitions_has_the_same_answers_as_a_whole_one() {
    let (whole, parts, events) =
        (Store::whole().await, Store::in_partitions().await, events().await);
    for batch in events.chunks(BATCH) {
        assert_eq!(whole.store(batch).await, parts.store(batch).await);
    }
    assert_same(&whole, &parts, &events).await;
    for store in [&whole, &parts] {
        let later = "update event set deleted_at = deleted_at - interval '31 days'";
        sqlx::query(later).execute(&store.world.db).await.unwrap();
    }
    let (one, other) = (
        event::purge(&whole.world.db, 30, 10).await.unwrap(),
        event::purge(&parts.world.db, 30, 10).await.unwrap(),
    );
    assert_eq!(one, other);
    assert!(one.removed > 10, "{one:?}");
    assert_same(&whole, &parts, &events).await;
}

#[tokio::test]
async fn a_batch_that_is_stored_twice_at_once_in_partitions_is_stored_once() {
    let (parts, events) = (Store::in_partitions().await, events().await);
    let events: Vec<Event> = events.into_iter().filter(|event| event.kind == 1).take(400).collect();
    let unique: BTreeSet<EventId> = events.iter().map(|event| event.id).collect();
    let both = [parts.store(&events), parts.store(&events), parts.store(&events)];
    let outcomes = futures_util::future::join_all(both).await.concat();
    let new = outcomes.iter().filter(|outcome| **outcome == Stored::New).count();
    assert_eq!((new, parts.world.stored().await.len()), (unique.len(), unique.len()));
}

/// The other partitions are locked: whoever reads or plans with one of them waits.
#[tokio::test]
async fn a_window_reads_its_own_partitions_only() {
    let (parts, events) = (Store::in_partitions().await, events().await);
    for batch in events.chunks(BATCH) {
        parts.store(batch).await;
    }
    let mut other = tender_jobs::database::begin(&parts.world.db).await.unwrap();
    let others: String = sqlx::query_scalar(
        "select string_agg(inhrelid::regclass::text, ',') from pg_inherits
         where inhparent = 'event'::regclass and inhrelid::regclass::text not in ('event_3', 'event_4')",
    )
    .fetch_one(&mut *other)
    .await
    .unwrap();
    let lock = sqlx::AssertSqlSafe(format!("lock table only {others} in access exclusive mode"));
    sqlx::query(lock).execute(&mut *other).await.unwrap();
    let options = (*parts.world.db.connect_options()).clone().options([("lock_timeout", "100ms")]);
    let db = PgPool::connect_with(options).await.unwrap();
    let filter = Filter { kinds: BTreeSet::from([1]), ..Filter::default() };
    let set =
        async |since, until| event::set(&db, parts.to.id, &filter, LIMITS, since, until).await;
    let of_two_days = set(BEGIN + 3 * DAY, BEGIN + 5 * DAY - 1).await.unwrap();
    assert!(matches!(of_two_days, Set::Items(items) if items.len() > 10));
    assert!(set(BEGIN + 3 * DAY, BEGIN + 5 * DAY).await.is_err(), "a second of the next day");
    other.rollback().await.unwrap();
}
