//! Events at every limit, and events that the database refuses: none of them stops a lane, and each
//! is stored exactly or rejected by name.

use std::collections::BTreeSet;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::json;
use sha2::{Digest, Sha256};
use tender_jobs::{
    mirror::event::{self, Batch, Event, EventId, Limits, Reason, Stored, Tally, outgoing},
    queue::Settled,
};
use uuid::Uuid;

use crate::{
    event_store::{event, live},
    support::mirror::MirrorWorld,
};

const LIMITS: Limits = Limits { bytes: 20_000, tags: 12 };

/// Text of so many characters that does not compress, of as many bytes each.
fn noise(seed: u64, characters: usize, width: usize) -> String {
    let base = ['!', '\u{a1}', '\u{800}', '\u{10000}'][width - 1];
    let mut state = seed | 1;
    let mut next = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        u32::try_from(state >> 57).unwrap() // 0 to 127
    };
    let shift = |by: u32| char::from_u32(base as u32 + by % 90).unwrap();
    (0..characters).map(|_| shift(next())).collect()
}

async fn store(world: &MirrorWorld, upstream: Uuid, events: &[Event]) -> Vec<Stored> {
    match event::store(&world.db, Batch::new(upstream, events)).await.unwrap() {
        Settled::Written(stored) => stored,
        Settled::LeaseLost => panic!("the batch has no lease"),
    }
}

async fn read(world: &MirrorWorld, id: EventId) -> Event {
    outgoing::by_ids(&world.db, &[id]).await.unwrap().pop().expect("the event is stored")
}

#[tokio::test]
async fn a_deletion_with_an_endless_address_stops_no_lane() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let author = hex::encode([1; 32]);
    let address = |d: &str| ("a", format!("30023:{author}:{d}"));
    let long = noise(7, 1024, 1);
    let article = event(1, 1, 30_023, 0, &[("d", long.clone())]);
    let endless = noise(5, 6400, 1);
    let deletion =
        event(2, 1, 5, 1, &[address(&endless), address(&long), address(&noise(6, 1025, 1))]);

    let stored = store(&world, upstream, &[article.clone(), deletion.clone()]).await;

    assert_eq!(stored, [Stored::New, Stored::New]);
    assert_eq!(read(&world, deletion.id).await, deletion);
    assert_eq!(live(&world).await, BTreeSet::from([deletion.id]), "the longest key is deleted");
}

#[tokio::test]
async fn an_event_that_the_database_refuses_is_rejected_alone() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    sqlx::query("alter table event add constraint tight check (not tags @> '[[\"t\", \"tight\"]]') not valid")
        .execute(&world.db)
        .await
        .unwrap();
    let tag = |number: u8| if number % 20 == 7 { "tight" } else { "wide" }.to_owned();
    let kind = |number: u8| [1, 5, 30_023, 0][usize::from(number % 4)];
    let events: Vec<Event> = (0..60)
        .map(|number| event(number, number, kind(number), i64::from(number), &[("t", tag(number))]))
        .collect();
    let before = Tally { duplicate: 3, ..Tally::default() };
    let batch = Batch { before, ..Batch::new(upstream, &events) };

    let Settled::Written(stored) = event::store(&world.db, batch).await.unwrap() else {
        panic!("the batch has no lease")
    };

    let refused: Vec<u8> = (0..60).filter(|number| number % 20 == 7).collect();
    for (number, stored) in (0..60).zip(stored) {
        let culprit = Stored::Refused(Reason::RefusedByStore);
        let wanted = if refused.contains(&number) { culprit } else { Stored::New };
        assert_eq!(stored, wanted, "{number}");
    }
    assert_eq!(live(&world).await.len(), 57);
    assert_eq!(world.rejections().await, [("refused-by-store".to_owned(), 3)]);
    let (stored, duplicate, rejected): (i64, i64, i64) = sqlx::query_as(
        "select sum(stored)::bigint, sum(duplicate)::bigint, sum(rejected)::bigint from ingest_minute",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!((stored, duplicate, rejected), (57, 3, 3), "each event is counted once");
    let ids: Vec<EventId> = events.iter().map(|event| event.id).collect();
    let known = event::known(&world.db, upstream, &ids).await.unwrap();
    assert_eq!(known.ids.len(), 60, "a refused event is not fetched again at once");
}

/// Lets the next statements that insert events fail, so many of them.
async fn fail_inserts(world: &MirrorWorld, code: &str, times: u32) {
    for statement in [
        "drop trigger if exists failing on event".to_owned(),
        "drop sequence if exists inserts".to_owned(),
        "create sequence inserts".to_owned(), // a rollback does not turn it back
        format!(
            "create or replace function fail() returns trigger language plpgsql as $$
             begin
                 if nextval('inserts') <= {times} then raise exception using errcode = '{code}'; end if;
                 return null;
             end $$"
        ),
        "create trigger failing before insert on event for each statement execute function fail()".to_owned(),
    ] {
        sqlx::query(sqlx::AssertSqlSafe(statement)).execute(&world.db).await.unwrap();
    }
}

#[tokio::test]
async fn a_deadlock_is_tried_again_and_a_full_disk_is_an_error() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    let notes: Vec<Event> = (0..4).map(|number| event(number, 1, 1, 0, &[])).collect();
    for code in ["40P01", "40001"] {
        fail_inserts(&world, code, 4).await;
        sqlx::query("delete from event").execute(&world.db).await.unwrap();
        assert_eq!(store(&world, upstream, &notes).await, [Stored::New; 4], "{code}");
    }
    for (code, times) in [("53100", 1), ("57014", 1), ("40P01", 5)] {
        fail_inserts(&world, code, times).await;
        sqlx::query("delete from event").execute(&world.db).await.unwrap();
        let failed = event::store(&world.db, Batch::new(upstream, &notes)).await;
        assert!(failed.is_err(), "{code}: {failed:?}");
        assert_eq!(live(&world).await, BTreeSet::new());
    }
    assert_eq!(world.rejections().await, [], "no event is blamed");
}

#[tokio::test]
async fn a_refused_id_that_cannot_be_remembered_stops_no_lane() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({})).await.id;
    sqlx::query(
        "alter table known_id add constraint tight check (created_at <> 1700000002) not valid",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let notes = [event(0, 1, 1, 0, &[]), event(1, 1, 1, 1, &[])];
    let mut protected = event(9, 1, 1, 2, &[]);
    protected.tags = vec![vec!["-".to_owned()]];
    let events = [notes.as_slice(), &[protected]].concat();

    let stored = store(&world, upstream, &events).await;

    assert_eq!(stored, [Stored::New, Stored::New, Stored::Refused(Reason::RefusedByStore)]);
    assert_eq!(world.rejections().await, [("refused-by-store".to_owned(), 1)]);
}

#[tokio::test]
async fn an_event_with_u0000_is_stored_and_comes_back_bit_for_bit() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://a.test", json!({"direction": "both"})).await.id;
    let tags = json!([["d", "a\0b"], ["t", "x\0"], ["t", "sea"], ["\0", "\u{1}\u{7f}"]]);
    let (author, content) = (hex::encode([1; 32]), "\0 <&>\u{2028}\\u0000 \u{10ffff}");
    let form = json!([0, author, 1_700_000_001, 30_023, tags, content]).to_string();
    let id = hex::encode(Sha256::digest(&form));
    let wire = json!({
        "id": id, "pubkey": author, "created_at": 1_700_000_001, "kind": 30_023, "tags": tags,
        "content": content, "sig": "22".repeat(64),
    });
    let article = event::parse(&wire.to_string(), LIMITS).unwrap();
    let older = event(3, 1, 30_023, 0, &[("d", "a\0b".to_owned())]);
    let other = event(4, 1, 30_023, 0, &[("d", "a".to_owned())]);

    let stored = store(&world, upstream, &[older, article.clone(), other.clone()]).await;

    assert_eq!(stored, [Stored::Refused(Reason::Superseded), Stored::New, Stored::New]);
    let back = read(&world, article.id).await;
    assert_eq!(serde_json::to_value(&back).unwrap(), wire);
    assert_eq!(hex::encode(Sha256::digest(back.canonical())), id);
    let sea = tender_jobs::mirror::filter::Filter::parse(&json!({"#t": ["sea"]})).unwrap();
    let target = world.upstream("ws://b.test", json!({"direction": "up"})).await.id;
    let sent = outgoing::candidates(&world.db, target, &sea, None, 0, 10).await.unwrap().events;
    let sent: Vec<Event> = sent.into_iter().map(|one| one.event).collect();
    assert_eq!(sent, std::slice::from_ref(&article), "its other tags are indexed");

    let deletion = event(5, 1, 5, 9, &[("a", format!("30023:{author}:a\0b"))]);
    store(&world, upstream, std::slice::from_ref(&deletion)).await;
    assert_eq!(live(&world).await, BTreeSet::from([deletion.id, other.id]));
}

/// A length at a limit, or one beside it.
fn beside(limits: &'static [usize]) -> impl Strategy<Value = usize> {
    (prop::sample::select(limits), 0_usize..3)
        .prop_map(|(limit, by)| (limit + by).saturating_sub(1))
}

/// A text of a length at a limit: any width of characters, sometimes with U+0000, sometimes of one
/// character only.
fn text(limits: &'static [usize]) -> impl Strategy<Value = String> {
    (any::<u64>(), beside(limits), 1_usize..5, 0_u8..6).prop_map(|(seed, length, width, shape)| {
        let length = if shape == 5 { length / width } else { length };
        match shape {
            0 => "\0".repeat(length),
            1 => "a".repeat(length),
            2 => format!("{}\0", noise(seed, length.saturating_sub(1), width)),
            _ => noise(seed, length, width),
        }
    })
}

fn tag() -> impl Strategy<Value = Vec<String>> {
    let author = hex::encode([1; 32]);
    let word = |name: &'static str| move |value| vec![name.to_owned(), value];
    prop_oneof![
        text(&[255, 1020, 2700]).prop_map(word("t")),
        text(&[1, 1024]).prop_map(word("d")),
        (prop::sample::select(vec![0_u16, 5, 30_000, 39_999]), text(&[1024, 2700, 6400]))
            .prop_map(move |(kind, d)| vec!["a".to_owned(), format!("{kind}:{author}:{d}")]),
        text(&[64]).prop_map(word("e")),
        any::<u8>().prop_map(|byte| vec!["e".to_owned(), format!("{byte:02x}").repeat(32)]),
        prop::sample::select(vec![
            "0",
            "1",
            "-1",
            "9223372036854775807",
            "99999999999999999999",
            "x"
        ])
        .prop_map(|at| vec!["expiration".to_owned(), at.to_owned()]),
        text(&[1, 255]).prop_map(|name| vec![name]),
        Just(vec![String::new()]),
        Just(vec!["-".to_owned()]),
    ]
}

fn monster() -> impl Strategy<Value = String> {
    let kinds = [0_usize, 3, 5, 10_000, 20_000, 30_000, 40_000, 65_535];
    let kinds = kinds.map(|kind| [kind.saturating_sub(1), kind, kind + 1]).concat();
    let times = vec![-1_i64, 0, 1_700_000_000, 1 << 53, (1 << 53) + 1];
    let tags = proptest::collection::vec(tag(), 0..14);
    (prop::sample::select(kinds), prop::sample::select(times), tags, text(&[1, 5000]), any::<[u8; 32]>()).prop_map(
        |(kind, at, tags, content, id)| {
            let event = json!({
                "id": hex::encode(id), "pubkey": hex::encode([1; 32]), "created_at": at, "kind": kind,
                "tags": tags, "content": content, "sig": "22".repeat(64),
            });
            event.to_string()
        },
    )
}

#[test]
fn monsters_are_stored_exactly_or_rejected_by_name() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let world = runtime.block_on(MirrorWorld::new());
    let upstream = runtime.block_on(world.upstream("ws://a.test", json!({"direction": "both"}))).id;
    let config = Config { cases: 40, failure_persistence: None, ..Config::default() };
    let run = TestRunner::new(config).run(&proptest::collection::vec(monster(), 1..12), |texts| {
        let events: Vec<Event> =
            texts.iter().filter_map(|text| event::parse(text, LIMITS).ok()).collect();
        runtime.block_on(async {
            let stored = store(&world, upstream, &events).await;
            for (event, stored) in events.iter().zip(stored) {
                prop_assert_ne!(stored, Stored::Refused(Reason::RefusedByStore), "{:?}", event);
                if stored == Stored::New {
                    prop_assert_eq!(&read(&world, event.id).await, event);
                }
            }
            Ok(())
        })
    });
    run.unwrap();
}
