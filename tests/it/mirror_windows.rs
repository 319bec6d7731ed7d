//! The length of windows by negentropy: it is learned from the relay, kept over a restart, and below what was refused.

use futures_util::future::BoxFuture;
use nostr::{event::Event, key::Keys};
use serde_json::{Value, json};
use tender_jobs::mirror::{
    lane::LaneKind,
    upstream::{self, Fact, Upstream},
};

use crate::support::{
    mirror::{Mirror, MirrorWorld, settings},
    relays::{Client, FakeRelay, ids, notes},
    scripted::{Hook, Kept, Manner, scripted},
};

const HOUR: i64 = 3600;
/// The longest window that the strict relay accepts.
const ACCEPTED: i64 = 30 * HOUR;
/// The longest window that the slow relay answers.
const ANSWERED: i64 = 10 * HOUR;

fn seconds(open: &Value) -> i64 {
    open[2]["until"].as_i64().unwrap() - open[2]["since"].as_i64().unwrap()
}

/// The lengths of the windows that the relay was asked to compare.
fn windows(relay: &FakeRelay) -> Vec<i64> {
    relay.verbs("NEG-OPEN").iter().map(seconds).collect()
}

fn is_longer(message: &Value, most: i64) -> bool {
    message[0] == "NEG-OPEN" && seconds(message) > most
}

/// Refuses windows that are too long, as strfry does.
fn strict(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        let is_refused = is_longer(&message, ACCEPTED);
        if is_refused {
            client.send(json!(["NEG-ERR", message[1], "blocked: too many query results"])).await;
        }
        is_refused
    })
}

/// Answers nothing to windows that are too long.
fn silent(_: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move { is_longer(&message, ANSWERED) })
}

/// The longest span of a page that the relay of long pages answers.
const PAGED: i64 = 48 * HOUR;

fn is_long_page(message: &Value) -> bool {
    let bound = |key: &str| message[2][key].as_i64();
    let span = bound("until").zip(bound("since")).map(|(until, since)| until - since);
    message[0] == "REQ" && span.is_some_and(|span| span > PAGED)
}

/// Answers nothing to pages that are too long.
fn silent_page(_: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move { is_long_page(&message) })
}

/// Closes pages that are too long.
fn closed_page(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        let is_long = is_long_page(&message);
        if is_long {
            client.send(json!(["CLOSED", message[1], "error: statement timeout"])).await;
        }
        is_long
    })
}

/// A relay with an event every six hours, that compares whole sets.
async fn relay(world: &MirrorWorld, days: usize, before: Option<Hook>) -> (FakeRelay, Vec<Event>) {
    let until = world.db_now().await - 100;
    let events = notes(&Keys::generate(), 4 * days, until, 6 * HOUR);
    let negentropy = Some((usize::MAX, Kept::Newest));
    let manner = Manner { negentropy, before, ..Manner::default() };
    (scripted(&events, manner).await, events)
}

async fn upstream(world: &Mirror, relay: &FakeRelay, days: usize) -> Upstream {
    let config = json!({"backfill_since_hours": 24 * days + 24, "negentropy_timeout_seconds": 1});
    world.upstream(&relay.url, json!({"negentropy": true, "config": config})).await
}

#[tokio::test]
async fn windows_grow_at_the_defaults_although_each_brings_events() {
    let world = MirrorWorld::new().await;
    let (relay, events) = relay(&world, 60, None).await;
    let upstream = upstream(&world, &relay, 60).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
    assert_eq!(world.stored().await, ids(&events));
    let windows = windows(&relay);
    assert_eq!(windows[0], 2 * HOUR);
    assert!(windows.is_sorted_by(|one, next| *next <= 4 * one), "{windows:?}");
    assert!(windows.contains(&(168 * HOUR)), "{windows:?}");
    assert!(windows.len() <= 20, "two months in windows of a week: {windows:?}");
}

#[tokio::test]
async fn a_refused_length_is_not_asked_for_again_and_again() {
    let world = MirrorWorld::new().await;
    let (relay, events) = relay(&world, 30, Some(strict)).await;
    let upstream = upstream(&world, &relay, 30).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
    assert_eq!(world.stored().await, ids(&events));
    let windows = windows(&relay);
    let refused = windows.iter().filter(|length| **length > ACCEPTED).count();
    assert!(refused >= 2, "it is tried again: {windows:?}");
    assert!(refused <= 1 + windows.len() / 8, "{refused} of {} were refused", windows.len());
}

#[tokio::test]
async fn the_learned_length_survives_a_restart_and_so_does_a_refusal() {
    let world = MirrorWorld::new().await;
    let (relay, events) = relay(&world, 30, Some(strict)).await;
    let upstream = upstream(&world, &relay, 30).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    for _ in 0..6 {
        assert!(world.step().await);
    }
    let before = windows(&relay);
    assert!(before.iter().any(|length| *length > ACCEPTED), "{before:?}");
    let learned = world.lane(&upstream, LaneKind::Backfill).await.window_seconds;
    let restarted = Mirror::over(&world.db, settings());
    assert!(restarted.step().await);
    let first = windows(&relay)[before.len()];
    assert_eq!((Some(first), first <= ACCEPTED), (learned, true), "{before:?}");
    restarted.drain().await;
    assert_eq!(world.stored().await, ids(&events));

    // A full run begins with a week, unless that was refused.
    for expected in [true, false] {
        let before = windows(&relay).len();
        let lane = restarted.mirror(&upstream, LaneKind::Full).await;
        assert_eq!(lane.status, "completed");
        let first = windows(&relay)[before];
        assert_eq!(first > ACCEPTED, expected, "{}", first / HOUR);
    }
}

#[tokio::test]
async fn a_supporting_relay_that_is_silent_on_a_long_window_gets_shorter_ones() {
    let world = MirrorWorld::new().await;
    let (relay, events) = relay(&world, 3, Some(silent)).await;
    let upstream = upstream(&world, &relay, 3).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("negentropy")));
    assert_eq!(world.stored().await, ids(&events));
    let found = upstream::find(&world.db, upstream.id).await.unwrap().unwrap();
    assert_eq!(found.negentropy_verdict, "supported");
    assert!(windows(&relay).iter().any(|length| *length > ANSWERED), "one was tried");
}

/// Adds a gap of the last `seconds` to the only lane.
async fn add_due_gap(world: &Mirror, seconds: i64) {
    let now = world.db_now().await;
    sqlx::query(
        "with gap as (
             insert into lane_gap (lane_id, kind, since, until, reason, retry_at)
             select id, 'span', $1, $2, 'test', now() - interval '1 s' from lane)
         update lane set gap_retry_at = now() - interval '1 s', gap_spans = gap_spans + 1",
    )
    .bind(now - seconds)
    .bind(now - 1000)
    .execute(&world.db)
    .await
    .unwrap();
}

#[tokio::test]
async fn a_relay_that_was_asked_too_much_is_asked_for_a_short_window_after_a_day() {
    let world = MirrorWorld::new().await;
    let (relay, events) = relay(&world, 3, Some(silent)).await;
    let upstream = upstream(&world, &relay, 3).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    let set_back = async || {
        for statement in [
            "update upstream set negentropy_verdict = 'unsupported', negentropy_verdict_until = now() - interval '1 s'",
            "update lane set window_seconds = 604800",
        ] {
            sqlx::query(statement).execute(&world.db).await.unwrap();
        }
    };
    set_back().await;
    world.drain().await;
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.method.as_deref()), ("completed", Some("negentropy")));
    assert_eq!(world.stored().await, ids(&events));
    assert_eq!(windows(&relay)[0], 2 * HOUR);

    // A gap is no longer than that either.
    let before = windows(&relay).len();
    set_back().await;
    add_due_gap(&world, 48 * HOUR).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
    assert!(windows(&relay)[before] <= 2 * HOUR);
    let found = upstream::find(&world.db, upstream.id).await.unwrap().unwrap();
    assert_eq!(found.negentropy_verdict, "supported");
}

#[tokio::test]
async fn a_small_set_that_the_relay_cuts_needs_few_windows_over_a_sparse_month() {
    let world = MirrorWorld::new().await;
    let events = notes(&Keys::generate(), 15, world.db_now().await - 100, 48 * HOUR);
    let manner = Manner { negentropy: Some((1, Kept::Newest)), ..Manner::default() };
    let relay = scripted(&events, manner).await;
    let upstream = upstream(&world, &relay, 30).await;
    upstream::learn(&world.db, upstream.id, Fact::NegentropyCap(Some(1))).await.unwrap();
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
    assert_eq!(world.stored().await, ids(&events));
    let windows = windows(&relay);
    assert!(windows.len() < 50, "{} windows", windows.len());
}

/// Polls twenty days of a relay that answers no page of more than two days.
async fn polled_in_parts(before: Hook) {
    let world = MirrorWorld::new().await;
    let (relay, events) = relay(&world, 20, Some(before)).await;
    let config = json!({"backfill_since_hours": 24 * 21, "polling_timeout_seconds": 1});
    let upstream = world.upstream(&relay.url, json!({ "config": config })).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    let mut failures = 0;
    let lane = loop {
        world.drain().await;
        let lane = world.lane(&upstream, LaneKind::Backfill).await;
        if lane.status == "completed" {
            break lane;
        }
        failures += 1;
        assert!(failures <= 10, "{:?}", lane.last_error);
        assert!(lane.last_error.is_some(), "it is a failure, and backs off");
        world.make_due().await;
    };
    assert_eq!(lane.gaps(), 0);
    assert!(failures > 0, "a longer window was tried");
    assert_eq!(world.stored().await, ids(&events));
}

#[tokio::test]
async fn a_relay_that_answers_no_long_page_is_polled_in_shorter_windows() {
    polled_in_parts(silent_page).await;
}

#[tokio::test]
async fn a_relay_that_closes_long_pages_is_polled_in_shorter_windows() {
    polled_in_parts(closed_page).await;
}
