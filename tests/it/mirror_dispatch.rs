//! Which lanes get work, and how a change of the upstream or its settings shows in them.

use nostr::key::Keys;
use serde_json::json;
use tender_jobs::{
    mirror::{
        MIRROR,
        lane::{LaneKind, LaneState},
        upstream,
    },
    queue::{self, Page},
};
use tender_workers::mirror::orchestrate;

use crate::support::{
    mirror::{MirrorWorld, days, upstream_change},
    relays::{FakeRelay, RealRelay, as_json, notes, serve_req},
};

#[tokio::test]
async fn who_has_no_work_is_skipped_with_the_reason() {
    let world = MirrorWorld::new().await;
    let disabled = world.upstream("ws://a.test", json!({"enabled": false})).await;
    let up = world.upstream("ws://b.test", json!({"direction": "up"})).await;
    let down = world.upstream("ws://c.test", json!({"backfill": false})).await;
    let excluded = Some("its direction or its backfill flag excludes this mode");
    for (upstream, mode, skipped) in [
        (&disabled, LaneKind::Realtime, Some("disabled")),
        (&up, LaneKind::Realtime, excluded),
        (&up, LaneKind::Backfill, excluded),
        (&down, LaneKind::Backfill, excluded),
        (&down, LaneKind::Upload, excluded),
        (&down, LaneKind::Realtime, None),
        (&up, LaneKind::Upload, None),
    ] {
        assert_eq!(world.trigger(upstream, mode).await.skipped, skipped, "{} {mode}", upstream.url);
    }
    let tick = orchestrate::dispatch(&world.db, LaneKind::Upload, None, false).await;
    assert_eq!(tick.unwrap()[1].skipped, Some("already waiting"));
}

#[tokio::test]
async fn fifty_triggers_make_one_job() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://127.0.0.1:1", json!({})).await;
    let triggers = (0..50)
        .map(|_| orchestrate::dispatch(&world.db, LaneKind::Backfill, Some(upstream.id), true));
    for dispatched in futures_util::future::join_all(triggers).await {
        assert_eq!(dispatched.unwrap().len(), 1);
    }
    let filter = queue::JobFilter { queue: Some(MIRROR.to_owned()), ..Default::default() };
    assert_eq!(queue::jobs(&world.db, &filter, &Page::First, 100).await.unwrap().len(), 1);
    let (lanes,): (i64,) =
        sqlx::query_as("select count(*) from lane").fetch_one(&world.db).await.unwrap();
    assert_eq!(lanes, 1);
}

#[tokio::test]
async fn a_disabled_relay_pauses_and_goes_on_where_it_was() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    relay.add(&notes(&Keys::generate(), 50, world.db_now().await - 60, 3600)).await;
    let upstream = world.upstream(&relay.url, json!({"config": days(5)})).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    assert!(world.step().await);
    let before = world.lane(&upstream, LaneKind::Backfill).await;
    let upstream = world.change_upstream(&upstream, json!({"enabled": false})).await;
    world.drain().await;
    let paused = world.lane(&upstream, LaneKind::Backfill).await;
    assert_eq!((paused.status.as_str(), paused.backfill_until), ("idle", before.backfill_until));

    let upstream = world.change_upstream(&upstream, json!({"enabled": true})).await;
    let lane = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!((lane.status.as_str(), lane.stored), ("completed", 50));
}

#[tokio::test]
async fn a_longer_history_opens_a_completed_backfill_and_another_filter_starts_anew() {
    let world = MirrorWorld::new().await;
    let events = as_json(&notes(&Keys::generate(), 10, world.db_now().await - 60, 3600));
    let fake = FakeRelay::start(move |client, message| {
        let events = events.clone();
        async move {
            if message[0] == "REQ" {
                serve_req(&client, &message, &events, 500).await;
            }
        }
    })
    .await;
    let kind_1 = |mut config: serde_json::Value| {
        config["event_kinds"] = json!([1]);
        config
    };
    let upstream = world.upstream(&fake.url, json!({"config": kind_1(days(1))})).await;
    let done = world.mirror(&upstream, LaneKind::Backfill).await;
    let again = world.trigger(&upstream, LaneKind::Backfill).await;
    assert_eq!((again.lane, again.skipped), (None, Some("complete")));
    let upstream = world.change_upstream(&upstream, json!({"config": kind_1(days(3))})).await;
    let longer = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_eq!(longer.status, "completed");
    assert_eq!(longer.backfill_target.unwrap(), done.backfill_target.unwrap() - 2 * 86_400);

    let mut config = days(1);
    config["event_kinds"] = json!([7]);
    let upstream = world.change_upstream(&upstream, json!({ "config": config })).await;
    let anew = world.mirror(&upstream, LaneKind::Backfill).await;
    assert_ne!(anew.id, longer.id);
    assert_eq!((anew.violations, anew.status.as_str()), (0, "error"), "the fake knows no kinds");
}

#[tokio::test]
async fn a_full_run_looks_at_everything_again() {
    let world = MirrorWorld::new().await;
    let (relay, keys) = (RealRelay::start().await, Keys::generate());
    let now = world.db_now().await;
    let events = notes(&keys, 20, now - 60, 3600);
    relay.add(&events[..10]).await;
    let upstream = world.upstream(&relay.url, json!({"negentropy": true, "config": days(2)})).await;
    world.mirror(&upstream, LaneKind::Backfill).await;
    relay.add(&events[10..]).await; // what was published late, with an old date

    let full = world.mirror(&upstream, LaneKind::Full).await;
    assert_eq!((full.status.as_str(), full.stored), ("completed", 10));
    assert_eq!(world.stored().await.len(), 20);
    let again = world.mirror(&upstream, LaneKind::Full).await;
    assert_eq!(
        (again.status.as_str(), again.received),
        ("completed", 10),
        "nothing more was fetched"
    );
}

/// Lets the upstream be known not to support NIP-77.
async fn refuse_negentropy(world: &MirrorWorld) {
    let verdict = "update upstream set negentropy_verdict = 'unsupported',
                          negentropy_verdict_until = now() + interval '1 day'";
    sqlx::query(verdict).execute(&world.db).await.unwrap();
}

/// The seconds that a full run covers.
fn covered(lane: &LaneState) -> i64 {
    lane.backfill_started_at.unwrap() - lane.backfill_target.unwrap()
}

const WEEK: i64 = 7 * 86_400;

#[tokio::test]
async fn without_nip_77_a_full_run_covers_a_week_whatever_the_flag_says() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    let upstream =
        world.upstream(&relay.url, json!({"negentropy": true, "config": days(30)})).await;
    world.mirror(&upstream, LaneKind::Backfill).await;
    refuse_negentropy(&world).await;
    world.trigger(&upstream, LaneKind::Full).await;
    assert_eq!(covered(&world.lane(&upstream, LaneKind::Full).await), WEEK);
}

#[tokio::test]
async fn a_full_run_that_falls_back_to_polling_shrinks_to_a_week() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    let upstream =
        world.upstream(&relay.url, json!({"negentropy": true, "config": days(30)})).await;
    world.mirror(&upstream, LaneKind::Backfill).await;
    world.trigger(&upstream, LaneKind::Full).await;
    assert_eq!(covered(&world.lane(&upstream, LaneKind::Full).await), 30 * 86_400);
    refuse_negentropy(&world).await;
    world.drain().await;
    let full = world.lane(&upstream, LaneKind::Full).await;
    assert_eq!((full.status.as_str(), covered(&full)), ("completed", WEEK));
}

#[tokio::test]
async fn an_upstream_that_only_takes_events_is_never_polled_for_its_history() {
    let world = MirrorWorld::new().await;
    let fields = json!({"negentropy": true, "direction": "up"});
    let upstream = world.upstream("ws://a.test", fields).await;
    refuse_negentropy(&world).await;
    for mode in [LaneKind::Backfill, LaneKind::Full] {
        let skipped = world.trigger(&upstream, mode).await.skipped.unwrap();
        assert!(skipped.contains("does not support NIP-77"), "{skipped}");
    }
}

#[tokio::test]
async fn backfill_and_full_never_fetch_the_same_history_at_once() {
    let world = MirrorWorld::new().await;
    let relay = RealRelay::start().await;
    let fields = json!({"negentropy": true, "config": days(20)});
    let upstream = world.upstream(&relay.url, fields).await;
    // A full run of a new upstream is its backfill.
    let full = world.trigger(&upstream, LaneKind::Full).await.lane;
    assert_eq!(full, world.trigger(&upstream, LaneKind::Backfill).await.lane);
    world.drain().await;
    world.trigger(&upstream, LaneKind::Full).await;
    assert!(world.step().await);
    assert_eq!(world.lane(&upstream, LaneKind::Full).await.status, "syncing");
    let upstream = world.change_upstream(&upstream, json!({"config": days(25)})).await;
    let skipped = world.trigger(&upstream, LaneKind::Backfill).await;
    assert_eq!(
        (skipped.lane, skipped.skipped),
        (None, Some("a full run compares the history now"))
    );
    world.drain().await;
    assert_eq!(world.mirror(&upstream, LaneKind::Backfill).await.status, "completed");
}

#[tokio::test]
async fn new_events_go_before_history() {
    let world = MirrorWorld::new().await;
    let mut last = None;
    for index in 0..30 {
        let upstream = world.upstream(&format!("ws://{index}.test"), json!({})).await;
        world.trigger(&upstream, LaneKind::Backfill).await;
        last = Some(upstream);
    }
    let lane = world.trigger(&last.unwrap(), LaneKind::Realtime).await.lane.unwrap();
    let first = world.fetch_of(MIRROR).await.unwrap();
    let payload: serde_json::Value = serde_json::from_slice(&first.payload).unwrap();
    assert_eq!(payload["lane"], lane.to_string());
}

#[tokio::test]
async fn a_relay_that_we_host_gets_no_uploads() {
    let world = crate::support::World::new().await;
    let relay = world.relay("alpha").await;
    let mut change = upstream_change("wss://alpha.spaces.test", json!({"direction": "both"}));
    change.relay_id = Some(relay.id.as_str().to_owned());
    let refused = upstream::create(&world.db, &change).await.unwrap_err().to_string();
    assert!(refused.contains("must be down"), "{refused}");
    change.direction = None;
    let created = upstream::create(&world.db, &change).await.unwrap();
    let up = serde_json::from_value(json!({"direction": "up"})).unwrap();
    let refused = upstream::update(&world.db, created.id, &up).await.unwrap_err().to_string();
    assert!(refused.contains("must be down"), "{refused}");
}
