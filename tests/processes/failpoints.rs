//! A death at every step of an attempt, by panic and by abort: nothing is lost, nothing is created
//! twice, no two calls at once, no attempt beyond the cap.

use nostr::key::Keys;
use tender::demo::zooid::ZooidStandIn;
use tender_jobs::relay::Relay;

use crate::support::{
    World, eventually,
    process::{ROBOT_SECRET, Tender},
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

async fn stand_in() -> ZooidStandIn {
    ZooidStandIn::start(vec![Keys::parse(ROBOT_SECRET).unwrap().public_key()]).await.unwrap()
}

async fn check_panic(point: &str, world: &World, zooid: &ZooidStandIn, relay: &Relay) {
    let failpoints = format!("{point}=1*panic");
    let quick = [
        ("RELAY_SYNC_RETRY_BASE_SECS", "1"),
        ("RELAY_SYNC_RETRY_CAP_SECS", "1"),
        ("FAILPOINTS", failpoints.as_str()),
    ];
    let mut worker = Tender::start(world, &zooid.url(), &["work"], &quick);
    eventually("it is synced after the panic", async || world.reload(relay).await.synced).await;
    assert!(worker.log().contains("panicked"), "{point}: the panic happened: {}", worker.log());
    assert!(!worker.has_ended(), "{point}: the worker lives");
    worker.kill().await;
}

async fn check_abort(point: &str, world: &World, zooid: &ZooidStandIn, relay: &Relay) {
    let failpoints = format!("{point}=1*return");
    let mut worker = Tender::start(world, &zooid.url(), &["work"], &[("FAILPOINTS", &failpoints)]);
    assert!(!worker.wait().await.success(), "{point}: it aborted");
    world.expire_leases().await;
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
    for point in CREATE {
        let (world, zooid) = (World::new().await, stand_in().await);
        let relay = world.relay("alpha").await;
        check_panic(point, &world, &zooid, &relay).await;
        assert_whole(point, &world, &zooid, &relay).await;
        let failed = world.history(&relay).await.contains(&"fail_relay_sync");
        assert_eq!(failed, point != "sync-after-settle", "{point}: recorded unless it was settled");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_abort_at_any_step_of_a_creation_is_made_up_for() {
    for point in CREATE {
        let (world, zooid) = (World::new().await, stand_in().await);
        let relay = world.relay("alpha").await;
        check_abort(point, &world, &zooid, &relay).await;
        assert_whole(point, &world, &zooid, &relay).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_death_at_any_step_of_a_change_is_made_up_for() {
    for point in CHANGE {
        for kill in [false, true] {
            let (world, zooid) = (World::new().await, stand_in().await);
            let relay = world.relay("alpha").await;
            let mut worker = Tender::start(&world, &zooid.url(), &["work"], &[]);
            eventually("it is created", async || world.reload(&relay).await.synced).await;
            worker.kill().await;
            world.rename(&relay, "changed").await;
            if kill {
                check_abort(point, &world, &zooid, &relay).await;
            } else {
                check_panic(point, &world, &zooid, &relay).await;
            }
            assert_whole(point, &world, &zooid, &relay).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reconcile_that_dies_between_pages_goes_on_at_the_next() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let relay = world.relay("alpha").await;
    sqlx::query("delete from apalis.jobs").execute(&world.db).await.unwrap();
    check_abort("reconcile-after-page", &world, &zooid, &relay).await;
    assert_eq!(zooid.overlaps(), Vec::<String>::new());
}
