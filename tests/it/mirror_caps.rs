//! Relays that cut their answers without a sign: every event arrives, or the lane names its gap.

use std::collections::HashSet;

use futures_util::future::BoxFuture;
use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use tender_jobs::mirror::{
    lane::{
        LaneKind, LaneState,
        gap::{self, GapKind, GapRow},
    },
    upstream::{self, Upstream},
};

use crate::support::{
    mirror::{Mirror, MirrorWorld, days},
    relays::{Client, FakeRelay, event, ids, note, notes},
    scripted::{Hook, Kept, Manner, scripted},
};

async fn gaps(world: &Mirror, lane: &LaneState) -> Vec<GapRow> {
    gap::gaps(&world.db, lane.id, 100).await.unwrap()
}

async fn learned(world: &Mirror, upstream: &Upstream) -> upstream::Learned {
    upstream::learned(&world.db, upstream.id).await.unwrap()
}

/// Mirrors a day of history by negentropy.
async fn reconciled(world: &Mirror, fake: &FakeRelay) -> (Upstream, LaneState) {
    let fields = json!({"negentropy": true, "config": days(1)});
    let upstream = world.upstream(&fake.url, fields).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    (upstream, lane)
}

/// Mirrors a day of history by polling.
pub(crate) async fn polled(world: &Mirror, fake: &FakeRelay) -> (Upstream, LaneState) {
    let upstream = world.upstream(&fake.url, json!({"config": days(1)})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    (upstream, lane)
}

#[tokio::test]
async fn a_capped_reconciliation_loses_no_event() {
    let caps = [
        (100, Kept::Newest),
        (500, Kept::Newest),
        (1000, Kept::Newest),
        (500, Kept::Oldest),
        (500, Kept::Spread),
    ];
    let keys = Keys::generate();
    let world = MirrorWorld::new().await;
    let events = notes(&keys, 3002, world.db_now().await - 100, 25);
    for (cap, kept) in caps {
        let world = MirrorWorld::new().await;
        let manner = Manner { negentropy: Some((cap, kept)), ..Manner::default() };
        let fake = scripted(&events, manner).await;

        let (upstream, lane) = reconciled(&world, &fake).await;

        assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0), "{cap} {kept:?}");
        assert_eq!(world.stored().await.len(), events.len(), "{cap} {kept:?}");
        assert_eq!(world.stored().await, ids(&events), "{cap} {kept:?}");
        let found = learned(&world, &upstream).await.negentropy_cap;
        assert_eq!(found, Some(i64::try_from(cap).unwrap()), "{kept:?}");
    }
}

#[tokio::test]
async fn what_a_capped_reconciliation_hides_is_not_believed_to_be_missing_there() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = notes(&keys, 600, world.db_now().await - 100, 60);
    let manner = Manner { negentropy: Some((100, Kept::Newest)), ..Manner::default() };
    let fake = scripted(&events, manner).await;
    let fields = json!({"negentropy": true, "direction": "both", "config": days(1)});
    let upstream = world.upstream(&fake.url, fields).await;
    for mode in [LaneKind::Backfill, LaneKind::Full, LaneKind::Upload] {
        world.mirror(&upstream, mode).await;
    }
    assert_eq!(world.stored().await, ids(&events));
    assert_eq!(fake.verbs("EVENT").len(), 0, "the relay has them all");
}

#[tokio::test]
async fn a_whole_reconciliation_costs_one_more_round_trip() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = notes(&keys, 40, world.db_now().await - 100, 60);
    let manner = Manner { negentropy: Some((usize::MAX, Kept::Newest)), ..Manner::default() };
    let fake = scripted(&events, manner).await;
    let (upstream, lane) = reconciled(&world, &fake).await;
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("negentropy")));
    assert_eq!(learned(&world, &upstream).await.negentropy_cap, None);
    let opened = fake.verbs("NEG-OPEN").len();
    assert_eq!(fake.verbs("REQ").len(), 1 + 2 * opened, "one fetch, and two probes at once");
}

#[tokio::test]
async fn a_page_cap_below_the_advertised_one_loses_no_event() {
    let keys = Keys::generate();
    let world = MirrorWorld::new().await;
    let events = notes(&keys, 2100, world.db_now().await - 100, 25);
    for cap in [1, 50, 100, 1000] {
        let world = MirrorWorld::new().await;
        let events = if cap == 1 { &events[..30] } else { &events[..] };
        let fake = scripted(events, Manner { page: cap, ..Manner::default() }).await;
        let (upstream, lane) = polled(&world, &fake).await;
        assert_eq!(world.stored().await.len(), events.len(), "{cap}");
        assert_eq!(lane.status, "completed");
        if cap > 1 {
            assert_eq!(lane.gaps(), 0, "{cap}: {:?}", gaps(&world, &lane).await);
        }
        if (2..500).contains(&cap) {
            let found = learned(&world, &upstream).await.page_cap;
            assert_eq!(found, Some(i64::try_from(cap).unwrap()));
        }
    }
}

/// Seconds with so many events each, `step` seconds apart.
pub(crate) fn dense(keys: &Keys, seconds: &[usize], until: i64, step: i64) -> Vec<Event> {
    let mut events = Vec::new();
    for (index, count) in seconds.iter().enumerate() {
        let at = until - step * i64::try_from(index).unwrap();
        events.extend((0..*count).map(|n| note(keys, at, &format!("{at} {n}"))));
    }
    events
}

#[tokio::test]
async fn an_exclusive_until_is_noticed_and_loses_no_event() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = dense(&keys, &[40; 12], world.db_now().await - 100, 3600);
    let manner = Manner { page: 100, is_exclusive: true, ..Manner::default() };
    let fake = scripted(&events, manner).await;
    let (upstream, lane) = polled(&world, &fake).await;
    assert_eq!(world.stored().await, ids(&events));
    assert_eq!((lane.status.as_str(), lane.gaps(), lane.violations), ("completed", 0, 0));
    assert!(learned(&world, &upstream).await.is_exclusive());
    upstream::reset(&world.db, Some(upstream.id), None).await.unwrap();
    assert_eq!(learned(&world, &upstream).await, upstream::Learned::default());
}

#[tokio::test]
async fn a_full_second_is_requested_with_a_larger_limit() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = dense(&keys, &[3, 1530, 2], world.db_now().await - 100, 60);
    let fake = scripted(&events, Manner { larger: 5000, ..Manner::default() }).await;
    let (_, lane) = polled(&world, &fake).await;
    assert_eq!(world.stored().await.len(), events.len());
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
}

#[tokio::test]
async fn a_full_second_is_requested_by_prefixes() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = dense(&keys, &[3, 700, 2], world.db_now().await - 100, 60);
    let manner = Manner { page: 100, takes_prefixes: true, ..Manner::default() };
    let fake = scripted(&events, manner).await;
    let (_, lane) = polled(&world, &fake).await;
    assert_eq!(world.stored().await.len(), events.len());
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
}

/// Whether a request has an id that is none.
fn has_prefix(message: &Value) -> bool {
    message[2]["ids"][0].as_str().is_some_and(|id| id.len() < 64)
}

/// Ends the connection at a prefix, as relays of rust-nostr do.
fn hang_up_at_prefixes(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        if has_prefix(&message) {
            client.close().await;
        }
        has_prefix(&message)
    })
}

fn close_prefixes(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        if has_prefix(&message) {
            client.send(json!(["CLOSED", message[1], "error: malformed filter"])).await;
        }
        has_prefix(&message)
    })
}

/// Whether a request is for a single second.
fn is_part(message: &Value) -> bool {
    message[2]["since"].is_number() && message[2]["since"] == message[2]["until"]
}

fn hang_up_at_parts(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        if is_part(&message) {
            client.close().await;
        }
        is_part(&message)
    })
}

fn limit_parts(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        if is_part(&message) {
            client.send(json!(["CLOSED", message[1], "rate-limited: slow down"])).await;
        }
        is_part(&message)
    })
}

#[tokio::test]
async fn a_relay_that_ends_what_asks_for_a_full_second_is_asked_so_a_few_times() {
    let cases: [(&str, Hook, usize); 4] = [
        ("hangs up at prefixes", hang_up_at_prefixes, 1),
        ("closes prefixes", close_prefixes, 0),
        ("hangs up at parts", hang_up_at_parts, 2),
        ("limits parts", limit_parts, 2),
    ];
    for (name, before, failures) in cases {
        let (world, keys) = (MirrorWorld::new().await, Keys::generate());
        let at = world.db_now().await - 100;
        let events = dense(&keys, &[3, 700, 2, 600, 4], at, 60);
        let manner = Manner { page: 100, before: Some(before), ..Manner::default() };
        let fake = scripted(&events, manner).await;
        let (upstream, mut lane) = polled(&world, &fake).await;
        for _ in 0..failures {
            assert_ne!(lane.status, "completed", "{name}");
            world.make_due().await;
            world.drain().await;
            lane = world.lane(&upstream, LaneKind::Backfill).await;
        }
        assert_eq!((lane.status.as_str(), lane.gap_seconds), ("completed", 2), "{name}");
        let prefixes = fake.verbs("REQ").iter().filter(|message| has_prefix(message)).count();
        assert!(prefixes <= 1, "{name}: {prefixes} prefixes");
    }
}

#[tokio::test]
async fn a_second_that_is_not_proven_is_a_gap_and_is_retried() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let at = world.db_now().await - 100;
    let mut events = dense(&keys, &[3, 150, 2], at, 60);
    events.extend((0..90).map(|n| event(&keys, 7, at - 60, &n.to_string(), vec![])));
    let fake = scripted(&events, Manner { page: 100, ..Manner::default() }).await;
    let (upstream, lane) = polled(&world, &fake).await;
    assert_eq!((lane.status.as_str(), lane.gap_seconds, lane.gaps()), ("completed", 1, 1));
    assert!(world.stored().await.len() >= 3 + 100 + 2);
    let gap = gaps(&world, &lane).await.remove(0);
    assert_eq!((gap.kind, gap.since, gap.attempts), (GapKind::Second, at - 60, 0));
    // The next run finds nothing to do until the gap is due; then it asks for that second alone.
    assert_eq!(world.trigger(&upstream, LaneKind::Backfill).await.skipped, Some("complete"));
    make_gaps_due(&world).await;
    let before = fake.verbs("REQ").len();
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gap_seconds), ("completed", 1));
    let asked = &fake.verbs("REQ")[before..];
    assert!(asked.iter().all(|req| req[2]["until"].as_i64().unwrap() <= at - 60), "{asked:?}");
    let again = gaps(&world, &lane).await.remove(0);
    assert_eq!((again.attempts, again.first_seen_at), (1, gap.first_seen_at));
    assert!(again.retry_at > gap.retry_at);
}

pub(crate) async fn make_gaps_due(world: &Mirror) {
    for sql in [
        "update lane_gap set retry_at = now() - interval '1 s'",
        "update lane set gap_retry_at = now() - interval '1 s' where gap_retry_at is not null",
    ] {
        sqlx::query(sql).execute(&world.db).await.unwrap();
    }
}

#[tokio::test]
async fn ids_that_never_come_are_gaps_and_are_asked_for_again_when_due() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = notes(&keys, 20, world.db_now().await - 100, 60);
    let withheld: HashSet<String> = ids(&events[..3]).into_iter().collect();
    let manner =
        Manner { negentropy: Some((usize::MAX, Kept::Newest)), withheld, ..Manner::default() };
    let fake = scripted(&events, manner).await;
    let (upstream, lane) = reconciled(&world, &fake).await;
    assert_eq!((lane.status.as_str(), lane.gap_ids, lane.stored), ("completed", 3, 17));
    let asked = fetches(&fake);
    assert_eq!(asked, 2, "asked twice");
    // A full run lists them again, and does not ask for them before they are due.
    let full = world.mirror(&upstream, LaneKind::Full).await;
    assert_eq!(full.gap_ids, 3, "the full lane has an account of its own");
    let asked = fetches(&fake);
    let full = world.mirror(&upstream, LaneKind::Full).await;
    assert_eq!((full.gap_ids, fetches(&fake)), (3, asked), "not due");
    make_gaps_due(&world).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.gap_ids, fetches(&fake)), (3, asked + 2));
    assert!(gaps(&world, &lane).await.iter().all(|gap| gap.attempts == 1));
}

/// The number of requests by id.
fn fetches(fake: &FakeRelay) -> usize {
    fake.verbs("REQ").iter().filter(|req| req[2]["ids"].is_array()).count()
}

#[tokio::test]
async fn a_gap_closes_when_its_event_comes() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = notes(&keys, 20, world.db_now().await - 100, 60);
    let withheld: HashSet<String> = ids(&events[..3]).into_iter().collect();
    let negentropy = Some((usize::MAX, Kept::Newest));
    let fake = scripted(&events, Manner { negentropy, withheld, ..Manner::default() }).await;
    let (upstream, lane) = reconciled(&world, &fake).await;
    assert_eq!(lane.gap_ids, 3);
    let honest = scripted(&events, Manner { negentropy, ..Manner::default() }).await;
    sqlx::query("update upstream set url = $1").bind(&honest.url).execute(&world.db).await.unwrap();
    make_gaps_due(&world).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gaps(), lane.gaps_since), ("completed", 0, None));
    assert_eq!(world.stored().await, ids(&events));
}

#[tokio::test]
async fn a_relay_of_phantom_ids_is_a_failed_lane_after_few_requests() {
    let world = MirrorWorld::new().await;
    let at = u64::try_from(world.db_now().await - 5000).unwrap();
    let phantom = |n: u64| {
        let mut id = [7; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        (at + n / 100, id)
    };
    let manner = Manner {
        negentropy: Some((usize::MAX, Kept::Newest)),
        phantoms: (0..20_000).map(phantom).collect(),
        ..Manner::default()
    };
    let fake = scripted(&[], manner).await;
    let (_, lane) = reconciled(&world, &fake).await;
    assert_eq!(lane.status, "error");
    let error = lane.error_message.unwrap();
    assert!(error.contains("none was delivered"), "{error}");
    assert!(fake.verbs("REQ").len() < 30, "{}", fake.verbs("REQ").len());
}

#[tokio::test]
async fn a_relay_that_ends_its_pages_before_their_events_is_a_failed_lane() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = notes(&keys, 50, world.db_now().await - 100, 60);
    let fake = scripted(&events, Manner { ends_first: true, ..Manner::default() }).await;
    for mode in [LaneKind::Backfill, LaneKind::Realtime] {
        let url = format!("{}/{mode}", fake.url);
        let upstream = world.upstream(&url, json!({"config": days(1)})).await;
        let lane = world.mirror(&upstream, mode).await;
        assert_eq!(lane.status, "error", "{mode}");
        let error = lane.error_message.unwrap();
        assert!(error.contains("after the end of the page"), "{error}");
    }
}

#[tokio::test]
async fn a_relay_that_cuts_the_newest_events_of_a_page_is_a_failed_lane() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let events = notes(&keys, 300, world.db_now().await - 100, 60);
    let manner = Manner { page: 100, is_reversed: true, ..Manner::default() };
    let (_, lane) = polled(&world, &scripted(&events, manner).await).await;
    assert_eq!(lane.status, "error");
    let error = lane.error_message.unwrap();
    assert!(error.contains("does not hold the newest events"), "{error}");
}

#[tokio::test]
async fn a_page_full_of_violations_is_a_failed_lane() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let now = world.db_now().await;
    let mut events = notes(&keys, 5, now - 100, 1);
    events.extend(notes(&keys, 60, now - 300_000, 1));
    let fake = scripted(&events, Manner { unasked: 60, ..Manner::default() }).await;
    let (_, lane) = polled(&world, &fake).await;
    assert_eq!(lane.status, "error");
    assert!(lane.error_message.unwrap().contains("60 events that were not requested"));
}

#[tokio::test]
async fn a_realtime_window_goes_on_where_the_last_job_left_it() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let now = world.db_now().await;
    let events = notes(&keys, 30, now - 100, 10);
    let fake = scripted(&events, Manner::default()).await;
    let upstream = world.upstream(&fake.url, json!({})).await;
    world.trigger(&upstream, LaneKind::Realtime).await;
    sqlx::query(
        "update lane set walk_since = $1 - 900, walk_until = $1 + 900, walk_at = $1 - 200, walk_cursor = $1",
    )
    .bind(now)
    .execute(&world.db)
    .await
    .unwrap();
    world.drain().await;
    let lane = world.lane(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), lane.cursor_at), ("idle", Some(now)));
    let first: &Value = &fake.verbs("REQ")[0][2];
    assert_eq!(first["until"], now - 200, "the part above is stored already");
    // The window is finished: the next run begins one of its own, and finds the newer events.
    let lane = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!((lane.status.as_str(), world.stored().await), ("idle", ids(&events)));
}
