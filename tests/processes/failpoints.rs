//! A death at every step of an attempt, by panic and by abort: nothing is lost, nothing is created
//! twice, no two calls at once, no attempt beyond the cap.

use futures_util::future::join_all;
use nostr::key::Keys;
use serde_json::json;
use tender::demo::zooid::ZooidStandIn;
use tender_jobs::{mirror::lane::LaneKind, provision::relay::Relay};

use crate::{
    stand_in,
    support::{
        World, eventually,
        mirror::{MirrorWorld, days},
        process::Tender,
        relays::{RealRelay, ids, notes},
    },
};

/// Every point of a first sync, in order.
const CREATE: [&str; 6] = [
    "sync-before-claim",
    "sync-after-claim",
    "sync-before-post",
    "sync-after-post",
    "sync-before-settle",
    "sync-after-settle",
];
/// The points that only a change passes.
const CHANGE: [&str; 2] = ["sync-before-patch", "sync-after-patch"];

async fn check_panic(point: &str, world: &World, zooid: &ZooidStandIn, relay: &Relay) {
    let failpoints = format!("{point}=1*panic");
    let quick = [
        ("RELAY_SYNC_RETRY_BASE_SECS", "1"),
        ("RELAY_SYNC_RETRY_CAP_SECS", "1"),
        ("FAILPOINTS", failpoints.as_str()),
    ];
    let mut worker = Tender::start(world, &zooid.url(), &["work"], &quick);
    eventually("it is synced after the panic", async || world.reload(relay).await.synced).await;
    let what = format!("{point}: the panic is logged");
    eventually(&what, async || worker.log().contains("panicked")).await;
    assert!(!worker.has_ended(), "{point}: the worker lives");
    worker.kill().await;
}

async fn check_abort(point: &str, world: &World, zooid: &ZooidStandIn, relay: &Relay) {
    let failpoints = format!("{point}=1*return");
    let mut worker = Tender::start(world, &zooid.url(), &["work"], &[("FAILPOINTS", &failpoints)]);
    assert!(!worker.wait().await.success(), "{point}: it aborted");
    world.bury(&mut worker).await;
    let mut next = Tender::start(world, &zooid.url(), &["work"], &[]);
    eventually("the next worker syncs it", async || world.reload(relay).await.synced).await;
    next.kill().await;
}

async fn assert_whole(point: &str, world: &World, zooid: &ZooidStandIn, relay: &Relay) {
    let calls = zooid.calls();
    assert_eq!(calls.iter().filter(|call| call.created).count(), 1, "{point}: created once");
    assert_eq!(zooid.overlaps(), Vec::<String>::new(), "{point}");
    let relay = world.reload(relay).await;
    assert_eq!(
        zooid.documents()[relay.id.as_str()]["info"]["name"],
        relay.info_name.as_str(),
        "{point}"
    );
    let attempts: Vec<_> = world.jobs().await.iter().map(|job| job.summary.attempts).collect();
    assert!(attempts.iter().all(|attempts| *attempts <= 2), "{point}: {attempts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_panic_at_any_step_of_a_creation_is_a_failed_attempt() {
    join_all(CREATE.map(async |point| {
        let (world, zooid) = (World::new().await, stand_in().await);
        let relay = world.relay("alpha").await;
        check_panic(point, &world, &zooid, &relay).await;
        assert_whole(point, &world, &zooid, &relay).await;
        let failed = world.history(&relay).await.contains(&"fail_relay_sync");
        assert_eq!(failed, point != "sync-after-settle", "{point}: recorded unless it was settled");
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_at_any_step_of_a_creation_is_made_up_for() {
    join_all(CREATE.map(async |point| {
        let (world, zooid) = (World::new().await, stand_in().await);
        let relay = world.relay("alpha").await;
        check_abort(point, &world, &zooid, &relay).await;
        assert_whole(point, &world, &zooid, &relay).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_of_a_change_is_made_up_for() {
    let cases = CHANGE.into_iter().flat_map(|point| [(point, false), (point, true)]);
    join_all(cases.map(async |(point, is_abort)| {
        let (world, zooid) = (World::new().await, stand_in().await);
        let relay = world.relay("alpha").await;
        let mut worker = Tender::start(&world, &zooid.url(), &["work"], &[]);
        eventually("it is created", async || world.reload(&relay).await.synced).await;
        world.bury(&mut worker).await;
        world.rename(&relay, "changed").await;
        if is_abort {
            check_abort(point, &world, &zooid, &relay).await;
        } else {
            check_panic(point, &world, &zooid, &relay).await;
        }
        assert_whole(point, &world, &zooid, &relay).await;
    }))
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconcile_that_dies_between_pages_goes_on_at_the_next() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let relay = world.relay("alpha").await;
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    check_abort("reconcile-after-page", &world, &zooid, &relay).await;
    assert_eq!(zooid.overlaps(), Vec::<String>::new());
}

/// The counters of a lane are written with the events that they count: a death between the two would
/// show here.
#[tokio::test(flavor = "multi_thread")]
async fn an_abort_between_store_and_settle_leaves_true_counters() {
    let (world, relay) = (MirrorWorld::new().await, RealRelay::start().await);
    let events = notes(&Keys::generate(), 50, world.db_now().await - 60, 600);
    relay.add(&events).await;
    let fields = json!({"negentropy": true, "config": days(1)});
    let upstream = world.upstream(&relay.url, fields).await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    let counted = async || {
        let (stored,): (i64,) =
            sqlx::query_as("select count(*) from event").fetch_one(&world.db).await.unwrap();
        let (of_minutes,): (i64,) =
            sqlx::query_as("select coalesce(sum(stored), 0)::bigint from ingest_minute")
                .fetch_one(&world.db)
                .await
                .unwrap();
        (stored, of_minutes, world.lane(&upstream, LaneKind::Backfill).await.stored)
    };
    let queue = ["work", "--queue", "mirror"];
    let failpoint = [("FAILPOINTS", "mirror-before-settle=1*return")];
    let mut worker = Tender::start_mirror(&world, &queue, &failpoint);
    assert!(!worker.wait().await.success(), "it aborted");
    world.bury(&mut worker).await;
    assert_eq!(counted().await, (50, 50, 50), "after the abort");

    let mut next = Tender::start_mirror(&world, &queue, &[]);
    eventually("history is done", async || {
        world.lane(&upstream, LaneKind::Backfill).await.status == "completed"
    })
    .await;
    assert_eq!(counted().await, (50, 50, 50), "at the end");
    assert_eq!(world.stored().await, ids(&events));
    next.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_part_that_panics_ends_the_process_with_its_name() {
    let parts = [
        ("part-rescue", "the rescue"),
        ("part-schedule", "the schedule"),
        ("part-notifications", "the notifications"),
        ("part-supervisor", "the supervisor of "),
        ("part-batches", "provision: the batches"),
    ];
    join_all(parts.map(async |(point, name)| {
        let (world, zooid) = (World::new().await, stand_in().await);
        world.relay("alpha").await;
        let failpoints = format!("{point}=1*panic");
        let more = [("FAILPOINTS", failpoints.as_str())];
        let mut worker = Tender::start(&world, &zooid.url(), &["work"], &more);
        assert_eq!(worker.wait().await.code(), Some(1), "{point}: {}", worker.log());
        let log = worker.log();
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(name) && last.contains("panicked"), "{point}: {log}");
    }))
    .await;
}
