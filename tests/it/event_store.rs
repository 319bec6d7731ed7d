//! The store against a simple model: whatever order events come in, however they are batched and
//! however many write at once, the same set stays.

use std::collections::{BTreeMap, BTreeSet};

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use tender_jobs::{
    mirror::{
        event::{self, Batch, Event, EventId, Limits, Reason, Refused, Stored},
        work::Work,
    },
    queue::{self, Settled},
};
use uuid::Uuid;

use crate::support::mirror::MirrorWorld;

pub(super) const LIMITS: Limits = Limits { bytes: 100_000, tags: 100 };

/// An event with an id of its number; the store does not verify.
pub(super) fn event(number: u8, author: u8, kind: u16, at: i64, tags: &[(&str, String)]) -> Event {
    let mut id = [0; 32];
    id[0] = number.wrapping_mul(97); // the order of ids is not that of numbers
    id[1] = number;
    Event {
        id: EventId(id),
        pubkey: [author; 32],
        created_at: 1_700_000_000 + at,
        kind,
        tags: tags.iter().map(|(name, value)| vec![(*name).to_owned(), value.clone()]).collect(),
        content: String::new(),
        sig: [1; 64],
    }
}

#[derive(Debug, Clone)]
enum Shape {
    Note,
    Profile,
    Article(bool),
    /// Of the event with this number, if it is its author's.
    DeletionOf(u8),
    /// Of a key of its author's.
    DeletionOfKey(u16, bool),
}

fn shape() -> impl Strategy<Value = Shape> {
    prop_oneof![
        2 => Just(Shape::Note),
        3 => Just(Shape::Profile),
        3 => any::<bool>().prop_map(Shape::Article),
        2 => (0_u8..16).prop_map(Shape::DeletionOf),
        1 => (prop_oneof![Just(0_u16), Just(30_023)], any::<bool>())
            .prop_map(|(kind, d)| Shape::DeletionOfKey(kind, d)),
    ]
}

fn build(shapes: &[(Shape, u8, i64)]) -> Vec<Event> {
    let name = |d: bool| if d { "a" } else { "b" }.to_owned();
    let mut events: Vec<Event> = Vec::new();
    let ids: Vec<EventId> = (0..16_u8).map(|number| event(number, 0, 1, 0, &[]).id).collect();
    for (number, (shape, author, at)) in (0_u8..).zip(shapes) {
        let author_hex = hex::encode([*author; 32]);
        events.push(match shape {
            Shape::Note => event(number, *author, 1, *at, &[]),
            Shape::Profile => event(number, *author, 0, *at, &[]),
            Shape::Article(d) => event(number, *author, 30_023, *at, &[("d", name(*d))]),
            Shape::DeletionOf(target) => {
                let target = ids[usize::from(*target)].to_string();
                event(number, *author, 5, *at, &[("e", target)])
            }
            Shape::DeletionOfKey(kind, d) => {
                let d = if *kind == 0 { String::new() } else { name(*d) };
                event(number, *author, 5, *at, &[("a", format!("{kind}:{author_hex}:{d}"))])
            }
        });
    }
    events
}

/// What stays, by the rules alone.
fn model(events: &[Event]) -> BTreeSet<EventId> {
    let deletions: Vec<&Event> = events.iter().filter(|event| event.kind == 5).collect();
    let is_deleted = |event: &Event| {
        let key =
            event.d_tag().map(|d| format!("{}:{}:{d}", event.kind, hex::encode(event.pubkey)));
        deletions.iter().filter(|deletion| deletion.pubkey == event.pubkey).any(|deletion| {
            deletion.tags.iter().any(|tag| match tag[0].as_str() {
                "e" => tag[1] == event.id.to_string(),
                _ => Some(&tag[1]) == key.as_ref() && event.created_at <= deletion.created_at,
            })
        })
    };
    let mut heads: BTreeMap<([u8; 32], u16, String), &Event> = BTreeMap::new();
    for event in events {
        let Some(d) = event.d_tag() else { continue };
        let head = heads.entry((event.pubkey, event.kind, d.to_owned())).or_insert(event);
        if (event.created_at, head.id) > (head.created_at, event.id) {
            *head = event;
        }
    }
    let stays = |event: &&Event| match event.d_tag() {
        _ if event.kind == 5 => true,
        None => !is_deleted(event),
        Some(d) => {
            heads[&(event.pubkey, event.kind, d.to_owned())].id == event.id && !is_deleted(event)
        }
    };
    events.iter().filter(stays).map(|event| event.id).collect()
}

pub(super) async fn live(world: &MirrorWorld) -> BTreeSet<EventId> {
    world.stored().await.iter().map(|id| EventId::parse(id).unwrap()).collect()
}

async fn store(world: &MirrorWorld, upstream: Uuid, events: &[Event]) -> Vec<Stored> {
    match event::store(&world.db, Batch::new(upstream, events)).await.unwrap() {
        Settled::Written(stored) => stored,
        Settled::LeaseLost => panic!("the batch has no lease"),
    }
}

#[test]
fn any_order_any_batches_any_writers_end_in_the_same_set() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(MirrorWorld::new());
    let upstream = runtime.block_on(world.upstream("ws://a.test", json!({"direction": "both"}))).id;
    let case = (
        proptest::collection::vec((shape(), 0_u8..2, 0_i64..5), 1..16),
        any::<prop::sample::Index>(),
        1_usize..5,
        any::<u64>(),
    );
    let mut runner = TestRunner::new(Config { cases: 60, ..Config::default() });
    let run = runner.run(&case, |(shapes, _, size, seed)| {
        let events = build(&shapes);
        let mut order = events.clone();
        order.sort_by_key(|event| u64::from(event.id.0[1]).wrapping_mul(seed | 1) >> 7);
        runtime.block_on(async {
            sqlx::query("truncate event, event_head, event_source, known_id, deletion_mark, deletion_address")
                .execute(&world.db).await.unwrap();
            let batches: Vec<Vec<Event>> = order.chunks(size).map(<[Event]>::to_vec).collect();
            let writers = batches.into_iter().map(|batch| {
                let db = world.db.clone();
                tokio::spawn(async move {
                    event::store(&db, Batch::new(upstream, &batch)).await
                })
            });
            for writer in writers.collect::<Vec<_>>() {
                writer.await.unwrap().unwrap();
            }
            // And everything once more, which changes nothing.
            event::store(&world.db, Batch::new(upstream, &order)).await.unwrap();
            prop_assert_eq!(live(&world).await, model(&events));
            Ok(())
        })
    });
    run.unwrap();
}

#[tokio::test]
async fn a_batch_says_of_each_event_what_became_of_it() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({"direction": "both"})).await.id;
    let now = world.db_now().await - 1_700_000_000;
    let expired =
        event(3, 1, 1, now - 100, &[("expiration", (1_700_000_000 + now - 1).to_string())]);
    let mut protected = event(4, 1, 1, now, &[]);
    protected.tags = vec![vec!["-".to_owned()]];
    let note = event(1, 1, 1, now, &[]);
    let events = [
        note.clone(),
        note,
        event(2, 1, 22_000, now, &[]),
        expired,
        protected,
        event(5, 1, 1, now + 5000, &[]),
    ];
    let refused = |reason| Stored::Refused(reason);
    let wanted = [
        Stored::New,
        Stored::Duplicate,
        refused(Reason::Ephemeral),
        refused(Reason::Expired),
        refused(Reason::Protected),
        refused(Reason::Future),
    ];
    assert_eq!(store(&world, upstream, &events).await, wanted);

    let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
    let known = event::known(&world.db, upstream, &ids).await.unwrap();
    assert_eq!(known.ids.len(), 4, "none of them is fetched again, but the ephemeral one");
    sqlx::query("update known_id set retry_after = now() - interval '1 s' where reason = 'future'")
        .execute(&world.db)
        .await
        .unwrap();
    let known = event::known(&world.db, upstream, &ids).await.unwrap();
    assert_eq!(known.ids.len(), 3, "one from the future is looked at again in its time");
}

#[tokio::test]
async fn a_forgery_from_one_relay_keeps_no_genuine_copy_out() {
    let world = MirrorWorld::new().await;
    let hostile = world.upstream("ws://hostile.test", json!({})).await.id;
    let honest = world.upstream("ws://honest.test", json!({})).await.id;
    let genuine = event(1, 1, 1, 0, &[]);
    let refused = [Refused::of(&genuine, Reason::BadSignature)];
    let batch = Batch { refused: &refused, ..Batch::new(hostile, &[]) };
    event::store(&world.db, batch).await.unwrap();

    let filter = tender_jobs::mirror::filter::Filter::default();
    let set = |upstream| {
        let (db, filter) = (&world.db, &filter);
        async move { event::set(db, upstream, filter, LIMITS, 0, 2_000_000_000).await.unwrap() }
    };
    let count = |set| match set {
        event::Set::Items(items) => items.len(),
        event::Set::TooLarge => usize::MAX,
    };
    assert_eq!(count(set(hostile).await), 1, "not fetched again from there");
    assert_eq!(count(set(honest).await), 0);
    assert!(event::known(&world.db, honest, &[genuine.id]).await.unwrap().ids.is_empty());
    assert_eq!(store(&world, honest, &[genuine]).await, [Stored::New]);
}

#[tokio::test]
async fn what_expires_goes_and_what_is_gone_for_long_leaves_its_id() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let now = world.db_now().await;
    let soon = event(1, 1, 1, 0, &[("expiration", (now + 1000).to_string())]);
    assert_eq!(store(&world, upstream, std::slice::from_ref(&soon)).await, [Stored::New]);
    sqlx::query("update event set expires_at = 1").execute(&world.db).await.unwrap();
    let purged = event::purge(&world.db, 30, 10).await.unwrap();
    assert_eq!((purged.expired, purged.removed), (1, 0));
    sqlx::query("update event set deleted_at = now() - interval '31 days'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(event::purge(&world.db, 30, 10).await.unwrap().removed, 1);
    assert!(event::known(&world.db, upstream, &[soon.id]).await.unwrap().ids.contains(&soon.id));
}

#[tokio::test]
async fn a_deletion_can_be_applied_once_more() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let note = event(1, 1, 1, 0, &[]);
    let deletion = event(2, 1, 5, 1, &[("e", note.id.to_string())]);
    store(&world, upstream, &[note.clone(), deletion.clone()]).await;
    assert_eq!(live(&world).await, BTreeSet::from([deletion.id]));
    sqlx::query("update event set deleted_at = null, delete_reason = null")
        .execute(&world.db)
        .await
        .unwrap();

    let work = Work::ProcessDeletion { event: deletion.id.to_string() };
    queue::enqueue(&world.db, &[work.job()]).await.unwrap();
    assert_eq!(world.drain().await, 1);
    assert_eq!(live(&world).await, BTreeSet::from([deletion.id]));
    assert!(!event::reapply_deletion(&world.db, note.id).await.unwrap());
}
