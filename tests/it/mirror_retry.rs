//! Retries of gaps, and what is done again when the reason of a verdict has gone.

use futures_util::future::BoxFuture;
use nostr::key::Keys;
use serde_json::{Value, json};
use tender_jobs::{
    console::operator,
    mirror::{
        lane::{
            LaneKind, LaneState,
            gap::{self, GapRow},
        },
        upstream::{self, Change, Upstream, UpstreamError},
    },
};

use crate::support::{
    mirror::{Mirror, MirrorWorld, days, upstream_change},
    relays::{Client, FakeRelay, ids, note, notes},
    scripted::{Kept, Manner, scripted},
};

async fn gaps(world: &Mirror, lane: &LaneState) -> Vec<GapRow> {
    gap::gaps(&world.db, lane.id, 100).await.unwrap()
}

/// Gives a lane a gap that is due; the first of them is due for the longest time.
async fn add_gap(world: &Mirror, lane: &LaneState, kind: &str, since: i64, until: i64) {
    sqlx::query(
        "insert into lane_gap (lane_id, kind, since, until, reason, retry_at)
         values ($1, $2, $3, $4, 'test', now() - interval '1 s')",
    )
    .bind(lane.id)
    .bind(kind)
    .bind(since)
    .bind(until)
    .execute(&world.db)
    .await
    .unwrap();
    sqlx::query(
        "update lane set gap_retry_at = now() - interval '1 s',
                gap_seconds = gap_seconds + ($2 = 'second')::int, gap_spans = gap_spans + ($2 = 'span')::int
         where id = $1",
    )
    .bind(lane.id)
    .bind(kind)
    .execute(&world.db)
    .await
    .unwrap();
}

/// Refuses a request for one odd second.
fn refuses_odd_seconds(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        let (since, until) = (message[2]["since"].as_i64(), message[2]["until"].as_i64());
        let is_refused = since == until && since.is_some_and(|second| second % 2 == 1);
        if is_refused {
            client.send(json!(["CLOSED", message[1], "error: disk"])).await;
        }
        is_refused
    })
}

/// A lane with a gap that the relay refuses, due first, and one that hides an event.
async fn two_gaps(world: &Mirror, mode: LaneKind) -> (FakeRelay, Upstream, LaneState, i64) {
    let at = (world.db_now().await - 50_000) / 2 * 2;
    let events = [note(&Keys::generate(), at, "hidden")];
    let manner = Manner { before: Some(refuses_odd_seconds), ..Manner::default() };
    let fake = scripted(&events, manner).await;
    let upstream = world.upstream(&fake.url, json!({"config": days(1)})).await;
    let lane = world.mirror(&upstream, mode).await;
    sqlx::query("delete from event").execute(&world.db).await.unwrap();
    sqlx::query("delete from event_source").execute(&world.db).await.unwrap();
    add_gap(world, &lane, "second", at - 1, at - 1).await;
    add_gap(world, &lane, "second", at, at).await;
    (fake, upstream, lane, at)
}

#[tokio::test]
async fn a_retry_that_fails_fails_no_run_of_new_events_and_delays_no_other_gap() {
    let world = MirrorWorld::new().await;
    let (_fake, upstream, lane, at) = two_gaps(&world, LaneKind::Realtime).await;

    let first = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!((first.status.as_str(), first.last_error.as_deref()), ("idle", None));
    let tried: Vec<(i64, i32)> =
        gaps(&world, &lane).await.iter().map(|gap| (gap.since, gap.attempts)).collect();
    assert_eq!(tried, [(at, 0), (at - 1, 1)]);

    let second = world.mirror(&upstream, LaneKind::Realtime).await;
    assert_eq!((second.status.as_str(), second.gaps()), ("idle", 1));
    assert_eq!(world.stored().await.len(), 1);
    assert!(second.gap_retry_at.unwrap().timestamp() > world.db_now().await + 3600);
}

#[tokio::test]
async fn the_next_job_of_a_history_retries_the_next_gap() {
    let world = MirrorWorld::new().await;
    let (_fake, upstream, lane, at) = two_gaps(&world, LaneKind::Backfill).await;

    let first = world.mirror(&upstream, LaneKind::Backfill).await;
    assert!(first.last_error.unwrap().contains("error: disk"));
    world.make_due().await;
    world.drain().await;

    let lane = world.lane(&upstream, lane.lane).await;
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 1));
    assert_eq!(world.stored().await.len(), 1);
    let left = gaps(&world, &lane).await.remove(0);
    assert_eq!((left.since, left.attempts), (at - 1, 1));
}

#[tokio::test]
async fn a_long_gap_is_retried_in_windows_from_new_to_old() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let now = world.db_now().await;
    let fake = scripted(&notes(&keys, 40, now - 100, 7200), Manner::default()).await;
    let upstream = world.upstream(&fake.url, json!({"config": days(4)})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!(lane.gaps(), 0);
    add_gap(&world, &lane, "span", now - 4 * 86_400, now).await;
    let (before, window) = (fake.verbs("REQ").len(), lane.window_seconds.unwrap());

    let lane = world.mirror(&upstream, LaneKind::Backfill).await;

    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
    let asked = fake.verbs("REQ").split_off(before);
    let length = |req: &Value| {
        req[2]["until"].as_i64().unwrap_or_default() - req[2]["since"].as_i64().unwrap()
    };
    assert!(asked.iter().all(|req| length(req) < window), "{window} {asked:?}");
    assert_eq!(asked[0][2]["until"], now);
}

/// Calls every comparison too big.
fn too_big(client: Client, message: Value) -> BoxFuture<'static, bool> {
    Box::pin(async move {
        let is_open = message[0] == "NEG-OPEN";
        if is_open {
            client.send(json!(["NEG-ERR", message[1], "blocked: this query is too big"])).await;
        }
        is_open
    })
}

/// Calls comparisons of more than three hours too big.
fn too_long(client: Client, message: Value) -> BoxFuture<'static, bool> {
    let at = |key: &str| message[2][key].as_i64().unwrap_or_default();
    let is_long = at("until") - at("since") > 3 * 3600;
    if is_long { too_big(client, message) } else { Box::pin(async { false }) }
}

/// An upstream that only takes events.
async fn taker(world: &Mirror, manner: Manner, events: usize) -> (FakeRelay, Upstream) {
    let events = notes(&Keys::generate(), events, world.db_now().await - 100, 60);
    let fake = scripted(&events, manner).await;
    let fields = json!({"negentropy": true, "direction": "up", "config": days(1)});
    let upstream = world.upstream(&fake.url, fields).await;
    (fake, upstream)
}

#[tokio::test]
async fn an_upstream_that_only_takes_events_is_never_polled() {
    let world = MirrorWorld::new().await;
    let (fake, upstream) = taker(&world, Manner::default(), 30).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.received, lane.last_error), ("idle", 0, None));
    assert_eq!((fake.verbs("NEG-OPEN").len(), fake.verbs("REQ").len()), (1, 0));
    let found = upstream::find(&world.db, upstream.id).await.unwrap().unwrap();
    assert_eq!(found.negentropy_verdict, "unsupported");
    // A chain of jobs that was enqueued before ends as well.
    tender_jobs::mirror::work::push_lane(
        &world.db,
        lane.id,
        LaneKind::Backfill,
        std::time::Duration::ZERO,
    )
    .await
    .unwrap();
    world.drain().await;
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.status, "idle");
    assert_eq!((fake.verbs("NEG-OPEN").len(), fake.verbs("REQ").len()), (1, 0));
}

#[tokio::test]
async fn a_minute_that_a_taker_does_not_compare_is_a_gap() {
    let world = MirrorWorld::new().await;
    let manner = Manner { before: Some(too_big), ..Manner::default() };
    let (fake, upstream) = taker(&world, manner, 30).await;
    let (keys, at) = (Keys::generate(), world.db_now().await - 1);
    let dense: Vec<_> = (0..150).map(|n| note(&keys, at, &n.to_string())).collect();
    world.put(&dense).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gap_spans, lane.received), ("idle", 1, 0));
    assert_eq!((lane.last_error.as_deref(), fake.verbs("REQ").len()), (None, 0));
    let gap = gaps(&world, &lane).await.remove(0);
    assert!((gap.since..=gap.until).contains(&at) && gap.reason.contains("dense"), "{gap:?}");
}

#[tokio::test]
async fn a_gap_that_a_taker_calls_too_big_is_divided() {
    let world = MirrorWorld::new().await;
    let negentropy = Some((usize::MAX, Kept::Newest));
    let manner = Manner { negentropy, before: Some(too_long), ..Manner::default() };
    let (_fake, upstream) = taker(&world, manner, 0).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gaps()), ("completed", 0));
    let now = world.db_now().await;
    sqlx::query("update lane set window_seconds = 86400").execute(&world.db).await.unwrap();
    add_gap(&world, &lane, "span", now - 80_000, now - 10).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.gaps(), lane.last_error), ("completed", 0, None));
}

#[tokio::test]
async fn late_events_are_a_gap_of_their_lane_while_it_works() {
    let world = MirrorWorld::new().await;
    let fake = scripted(&[], Manner::default()).await;
    let upstream = world.upstream(&fake.url, json!({"config": days(1)})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    gap::add_late(&world.db, lane.id, 10, 20).await.unwrap();
    assert_eq!(world.lane(&upstream, LaneKind::Backfill).await.gap_spans, 1);
    sqlx::query("update lane set retired_at = now()").execute(&world.db).await.unwrap();
    gap::add_late(&world.db, lane.id, 30, 40).await.unwrap();
    assert_eq!(gap::gaps(&world.db, lane.id, 10).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_raised_limit_lets_events_go_that_were_held_back_by_it() {
    let world = MirrorWorld::new().await;
    let fake = scripted(&[], Manner::default()).await;
    let upstream = world.upstream(&fake.url, json!({"direction": "up"})).await;
    let limits = async |limits: Value| {
        upstream::note_information(&world.db, upstream.id, Some(&limits)).await.unwrap();
    };
    limits(json!({"max_message_length": 100, "max_event_tags": 50})).await;
    let events = notes(&Keys::generate(), 3, world.db_now().await - 100, 60);
    world.put(&events).await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.upload_rejected, fake.verbs("EVENT").len()), (3, 0));

    limits(json!({"max_message_length": 90, "max_event_tags": 50})).await;
    assert_eq!(world.lane(&upstream, LaneKind::Upload).await.upload_pending, 0);
    limits(json!({"max_event_tags": 50})).await;
    assert_eq!(world.lane(&upstream, LaneKind::Upload).await.upload_pending, 3);
    world.make_uploads_due().await;
    let lane = world.mirror(&upstream, LaneKind::Upload).await;
    assert_eq!((lane.uploaded, lane.upload_pending), (3, 0));
    let mut sent: Vec<String> =
        fake.verbs("EVENT").iter().map(|m| m[1]["id"].to_string()).collect();
    sent.sort();
    assert_eq!(sent, ids(&events).iter().map(|id| json!(id).to_string()).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_change_that_cannot_be_recorded_is_not_made() {
    let world = MirrorWorld::new().await;
    let by = Some("key first".to_owned());
    let new = Change { by: by.clone(), ..upstream_change("wss://a.example.com", json!({})) };
    let upstream = upstream::create(&world.db, &new).await.unwrap();
    let told = operator::last(&world.db, 10).await.unwrap().remove(0);
    assert_eq!((told.who.as_str(), told.action.as_str()), ("key first", "add_upstream"));

    let rename = "alter table operator_action rename to elsewhere";
    sqlx::query(rename).execute(&world.db).await.unwrap();
    let other = Change { by: by.clone(), ..upstream_change("wss://b.example.com", json!({})) };
    let change = Change { by: by.clone(), enabled: Some(false), ..Change::default() };
    let created = upstream::create(&world.db, &other).await;
    assert!(matches!(created, Err(UpstreamError::Database(_))), "{created:?}");
    assert!(upstream::update(&world.db, upstream.id, &change).await.is_err());
    assert!(upstream::delete(&world.db, upstream.id, by.as_deref()).await.is_err());
    let left = upstream::list(&world.db).await.unwrap();
    assert_eq!(left.len(), 1);
    assert!(left[0].enabled && left[0].url == "wss://a.example.com");
}

#[tokio::test]
async fn a_history_of_an_earlier_release_is_proven_again_part_by_part() {
    let (world, keys) = (MirrorWorld::new().await, Keys::generate());
    let hidden = notes(&keys, 20, world.db_now().await - 100, 7200);
    let negentropy = Some((usize::MAX, Kept::Newest));
    let fake = scripted(&hidden, Manner { negentropy, ..Manner::default() }).await;
    let mut config = days(3);
    config["chunk_max_hours"] = json!(24);
    let fields = json!({"negentropy": true, "config": config});
    let upstream = world.upstream(&fake.url, fields).await;
    world.mirror(&upstream, LaneKind::Backfill).await;
    // As if the release before had missed them.
    for sql in ["delete from event_source", "delete from event"] {
        sqlx::query(sql).execute(&world.db).await.unwrap();
    }
    let upgrade = include_str!("../../migrations/20261121000065_unproven_history.sql");
    sqlx::raw_sql(upgrade).execute(&world.db).await.unwrap();
    let lane = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!(lane.condition().as_str(), "completed with gaps");
    let due = lane.gap_retry_at.unwrap().timestamp() - world.db_now().await;
    assert!((-60..86_460).contains(&due), "{due}");
    let opened = fake.verbs("NEG-OPEN").len();
    for sql in ["update lane_gap set retry_at = now()", "update lane set gap_retry_at = now()"] {
        sqlx::query(sql).execute(&world.db).await.unwrap();
    }
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.condition().as_str(), lane.gaps()), ("completed", 0));
    assert_eq!(world.stored().await, ids(&hidden));
    assert!(fake.verbs("NEG-OPEN").len() > opened + 1, "window by window");
}
