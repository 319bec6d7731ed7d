//! Whatever is missing on which side, and however few events a relay gives at a time: in the end both
//! sides have the same.

use nostr::key::Keys;
use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};
use serde_json::{Value, json};
use tender_jobs::mirror::{
    event::{self, Batch, Limits},
    lane::{LaneKind, gap},
};

use crate::support::{
    mirror::{Mirror, MirrorWorld, days, settings},
    relays::{RealRelay, as_json, event as make, ids, note},
    scripted::{Kept, Manner, scripted},
};

fn runner(cases: u32) -> TestRunner {
    TestRunner::new(Config { cases, failure_persistence: None, ..Config::default() })
}

/// A mirror without connections over the emptied ledger. A database per case would take longer than the
/// case.
async fn anew(whole: &MirrorWorld) -> Mirror {
    sqlx::query(
        "truncate upstream, event, event_head, event_source, known_id, deletion_mark,
             deletion_address, apalis.jobs, apalis.workers cascade",
    )
    .execute(&whole.db)
    .await
    .unwrap();
    Mirror::over(&whole.db, settings())
}

/// A history: how far each second is from the one before, and how many events it has.
fn history() -> impl Strategy<Value = Vec<(i64, usize)>> {
    proptest::collection::vec((0_i64..40, 1_usize..8), 1..12)
}

/// The events of a history, as JSON knows them by their seconds.
fn events_of(history: &[(i64, usize)], keys: &Keys, now: i64) -> Vec<nostr::event::Event> {
    let mut at = now - 100;
    let mut events = Vec::new();
    for (gap, count) in history {
        at -= 1 + gap;
        events.extend((0..*count).map(|n| note(keys, at, &format!("{at} {n}"))));
    }
    // A relay that has no more than one second, and cuts it below 50 events, cannot be told from one
    // that has no more events.
    events.push(note(keys, at - 50, "the oldest"));
    events
}

/// Whatever the relay cuts, every event arrives, or its second is a gap.
#[test]
fn any_page_cap_ends_with_every_event_or_with_its_second_as_a_gap() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let case = (1_usize..8, any::<bool>(), any::<bool>(), history());
    let whole = runtime.block_on(MirrorWorld::new());
    let run = runner(24).run(&case, |(page, is_exclusive, takes_prefixes, history)| {
        runtime.block_on(async {
            let (world, keys) = (anew(&whole).await, Keys::generate());
            let events = events_of(&history, &keys, world.db_now().await);
            let manner = Manner { page, is_exclusive, takes_prefixes, ..Manner::default() };
            let fake = scripted(&events, manner).await;
            let upstream = world.upstream(&fake.url, json!({"config": days(1)})).await;
            let lane = world.mirror(&upstream, LaneKind::Backfill).await;
            prop_assert_eq!(lane.status.as_str(), "completed");
            accounted(&world, lane.id, &events).await
        })
    });
    run.unwrap();
}

/// Whatever part of its set a relay compares, every event arrives.
#[test]
fn any_capped_reconciliation_ends_with_every_event_or_with_its_second_as_a_gap() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let kept = prop_oneof![Just(Kept::Newest), Just(Kept::Oldest)];
    let case = (1_usize..30, kept, 20_usize..60, history());
    let whole = runtime.block_on(MirrorWorld::new());
    let run = runner(24).run(&case, |(cap, kept, page, history)| {
        runtime.block_on(async {
            let (world, keys) = (anew(&whole).await, Keys::generate());
            let events = events_of(&history, &keys, world.db_now().await);
            let manner = Manner { page, negentropy: Some((cap, kept)), ..Manner::default() };
            let fake = scripted(&events, manner).await;
            let fields = json!({"negentropy": true, "config": days(1)});
            let upstream = world.upstream(&fake.url, fields).await;
            let lane = world.mirror(&upstream, LaneKind::Backfill).await;
            prop_assert_eq!(lane.status.as_str(), "completed");
            accounted(&world, lane.id, &events).await
        })
    });
    run.unwrap();
}

/// Every event is stored, or its second is a gap of the lane.
async fn accounted(
    world: &Mirror,
    lane: uuid::Uuid,
    events: &[nostr::event::Event],
) -> Result<(), TestCaseError> {
    let gaps = gap::gaps(&world.db, lane, 10_000).await.unwrap();
    let stored = world.stored().await;
    for event in events {
        let at = i64::try_from(event.created_at.as_secs()).unwrap();
        let is_gap = gaps.iter().any(|gap| (gap.since..=gap.until).contains(&at));
        let is_stored = stored.binary_search(&event.id.to_hex()).is_ok();
        prop_assert!(is_stored || is_gap, "an event of {} is missing: {:?}", at, gaps);
    }
    Ok(())
}

#[test]
fn any_difference_is_found_and_made_up_for_on_both_sides() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    // Where each event is: 0 here, 1 there, else on both; and how far from the one before.
    let case = proptest::collection::vec((0_u8..6, 0_i64..3), 0..400);
    let whole = runtime.block_on(MirrorWorld::new());
    let run = runner(8).run(&case, |places| {
        runtime.block_on(async {
            let (world, relay) = (anew(&whole).await, RealRelay::start().await);
            let keys = Keys::generate();
            let mut at = world.db_now().await - 10;
            let (mut ours, mut theirs, mut all) = (Vec::new(), Vec::new(), Vec::new());
            for (number, (place, gap)) in places.iter().enumerate() {
                at -= gap;
                let event = note(&keys, at, &number.to_string());
                if *place != 1 {
                    ours.push(event.clone());
                }
                if *place != 0 {
                    theirs.push(event.clone());
                }
                all.push(event);
            }
            relay.add(&theirs).await;
            let mut config = days(1);
            config["negentropy_frame_size"] = json!(4096);
            let fields = json!({"direction": "both", "negentropy": true, "config": config});
            let upstream = world.upstream(&relay.url, fields).await;
            put(&world, &ours).await;
            let lane = world.mirror(&upstream, LaneKind::Backfill).await;
            prop_assert_eq!(
                (lane.status.as_str(), lane.method.as_deref()),
                ("completed", Some("negentropy"))
            );
            prop_assert_eq!(world.stored().await, ids(&all));
            prop_assert_eq!(relay.ids().await, ids(&all));
            let again = world.mirror(&upstream, LaneKind::Full).await;
            prop_assert_eq!((again.received, again.stored), (0, 0), "nothing is left");
            Ok(())
        })
    });
    run.unwrap();
}

/// Events of our own, from an upstream that is no part of the test.
async fn put(world: &Mirror, events: &[nostr::event::Event]) {
    let own = world.upstream("ws://own.test", json!({})).await;
    let limits = Limits { bytes: 100_000, tags: 100 };
    let texts: Vec<Value> = as_json(events);
    let parsed: Vec<_> =
        texts.iter().map(|text| event::parse(&text.to_string(), limits).unwrap()).collect();
    event::store(&world.db, Batch::new(own.id, &parsed)).await.unwrap();
}

#[tokio::test]
async fn a_filter_holds_both_ways() {
    let (world, relay, keys) =
        (MirrorWorld::new().await, RealRelay::start().await, Keys::generate());
    let now = world.db_now().await;
    let tagged = |at: i64, tag: &str| make(&keys, 1, now - at, tag, vec![vec!["t", tag]]);
    let theirs = [tagged(100, "sea"), tagged(200, "land"), note(&keys, now - 300, "none")];
    relay.add(&theirs).await;
    let ours = [tagged(400, "sea"), tagged(500, "land")];
    put(&world, &ours).await;
    let mut config = days(1);
    config["filter"] = json!({"#t": ["sea"]});
    let fields = json!({"direction": "both", "negentropy": true, "config": config});
    let upstream = world.upstream(&relay.url, fields).await;

    world.mirror(&upstream, LaneKind::Backfill).await;
    world.mirror(&upstream, LaneKind::Upload).await;

    assert_eq!(world.stored().await, ids(&[theirs[0].clone(), ours[0].clone(), ours[1].clone()]));
    assert_eq!(relay.ids().await, ids(&[theirs.as_slice(), &ours[..1]].concat()));
}

#[tokio::test]
async fn after_an_outage_realtime_catches_up_in_ascending_windows() {
    let (world, relay, keys) =
        (MirrorWorld::new().await, RealRelay::start().await, Keys::generate());
    let now = world.db_now().await;
    let upstream = world.upstream(&relay.url, json!({"config": {"polling_chunk_hours": 2}})).await;
    world.mirror(&upstream, LaneKind::Realtime).await;
    sqlx::query("update lane set cursor_at = cursor_at - 36000").execute(&world.db).await.unwrap();
    let events: Vec<_> = (0..50).map(|n| note(&keys, now - 60 - 700 * n, "missed")).collect();
    relay.add(&events).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    assert!(world.step().await);
    let first = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!(first.status, "syncing");
    assert!(first.cursor_age.is_some_and(|age| age < 36_000 - 6000), "{first:?}");
    assert_eq!(world.drain().await, 5);
    let lane = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), world.stored().await), ("idle", ids(&events)));
}
