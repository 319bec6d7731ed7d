//! Workers killed, stopped and told to stop; zooid away for long.

use nix::sys::signal::Signal;
use tender::demo::zooid::{Fault, Gate};
use tender_jobs::provision::SYNC_RELAY;

use super::{RECOVERY, assert_in_step, create_relays, reached, synced};
use crate::{
    stand_in,
    support::{World, eventually, process::Tender, within},
};

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_again_and_again_lose_nothing() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let start =
        || Tender::start(&world, &zooid.url(), &["work"], &[("RELAY_SYNC_CONCURRENCY", "2")]);
    let mut workers = [start(), start(), start()];
    for round in 0..3 {
        for worker in &workers {
            worker.serves(&world.db, SYNC_RELAY).await;
        }
        // Each process has two calls under way when one of them is killed.
        let gate = Gate::default();
        zooid.plan(None, Fault::Hold(gate.clone()), Some(6));
        create_relays(&world, &format!("round-{round}"), 100).await;
        reached(&gate, 6).await;
        workers[round].kill().await;
        gate.open();
        workers[round] = start();
    }
    // The jobs of the killed come back when their heartbeats have been missed.
    within(RECOVERY, "all are synced", async || synced(&world).await == 300).await;
    assert_in_step(&world, &zooid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_finishes_what_runs_and_exits_with_success() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let gate = Gate::default();
    zooid.plan(None, Fault::Hold(gate.clone()), None);
    create_relays(&world, "relay", 8).await;
    let mut worker = Tender::start(&world, &zooid.url(), &["work", "--concurrency", "2"], &[]);
    reached(&gate, 2).await;
    worker.signal(Signal::SIGTERM);
    eventually("it says that it stops", async || worker.log().contains("stopping")).await;
    assert!(!worker.has_ended(), "it waits for its calls");
    gate.open();
    assert!(worker.wait().await.success(), "{}", worker.log());
    let held: i64 =
        sqlx::query_scalar("select count(*) from apalis.jobs where lock_by is not null")
            .fetch_one(&world.db)
            .await
            .unwrap();
    let leased: i64 =
        sqlx::query_scalar("select count(*) from relay where lease_until is not null")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!((held, leased), (0, 0));
    assert!(synced(&world).await >= 2, "{}", worker.log());
    let mut next = Tender::start(&world, &zooid.url(), &["work"], &[]);
    eventually("the next process does the rest", async || synced(&world).await == 8).await;
    assert_in_step(&world, &zooid).await;
    next.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let (world, zooid) = (World::new().await, stand_in().await);
    world.relay("alpha").await;
    // An attempt that waits for this lock lasts longer than a request to zooid may.
    let mut lock = tender_jobs::database::begin(&world.db).await.unwrap();
    sqlx::query("lock table relay in access exclusive mode").execute(&mut *lock).await.unwrap();
    let queue = ["work", "--queue", "sync-relay"];
    let mut worker = Tender::start(&world, &zooid.url(), &queue, &[]);
    eventually("an attempt runs", async || {
        let waiting: i64 = sqlx::query_scalar(
            "select count(*) from pg_stat_activity
             where datname = current_database() and application_name = 'tender' and wait_event_type = 'Lock'",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        waiting == 1
    })
    .await;
    worker.signal(Signal::SIGINT);
    eventually("it says that it stops", async || worker.log().contains("stopping")).await;
    assert!(!worker.has_ended(), "it waits for the attempt");
    worker.signal(Signal::SIGINT);
    // A stop in order would end with 0.
    assert_eq!(worker.wait().await.code(), Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_past_its_lease_changes_nothing_when_it_goes_on() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let relay = world.relay("alpha").await;
    let gate = Gate::default();
    zooid.plan(None, Fault::Hold(gate.clone()), Some(1));
    let queue = ["work", "--queue", "sync-relay"];
    let mut frozen = Tender::start(&world, &zooid.url(), &queue, &[]);
    reached(&gate, 1).await;
    frozen.freeze(&world.db).await;
    world.rename(&relay, "newer").await;
    world.expire_leases().await;
    let mut other = Tender::start(&world, &zooid.url(), &queue, &[]);
    eventually("another worker is through", async || world.reload(&relay).await.synced).await;
    let settled = world.reload(&relay).await;
    let records = world.records(&relay).await.len();
    gate.open();
    frozen.signal(Signal::SIGCONT);
    eventually("the late one notices", async || frozen.log().contains("lease lost")).await;
    let after = world.reload(&relay).await;
    assert_eq!((after.synced, after.synced_generation), (true, settled.synced_generation));
    assert_eq!(world.records(&relay).await.len(), records, "nothing was recorded by the late one");
    assert_eq!(zooid.documents()[relay.id.as_str()]["info"]["name"], "newer");
    frozen.kill().await;
    other.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zooid_away_for_longer_than_the_schedule_is_made_up_for() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.refuse(true);
    // The schedule is two retries of 1 s here; the rest of those that gave up is short as well.
    let schedule = [
        ("RELAY_SYNC_RETRY_BASE_SECS", "1"),
        ("RELAY_SYNC_RETRY_CAP_SECS", "1"),
        ("RELAY_SYNC_RETRY_MAX_ATTEMPTS", "2"),
        ("RECONCILE_SCHEDULE", "* * * * * *"),
        ("RECONCILE_EXHAUSTED_AFTER_SECS", "2"),
    ];
    let mut worker = Tender::start(&world, &zooid.url(), &["work"], &schedule);
    // Too few for the breaker, which would spare them.
    create_relays(&world, "relay", 4).await;
    eventually("all gave up at least once", async || {
        let gave_up: i64 = sqlx::query_scalar(
            "select count(distinct resource_id) from activity where detail->>'retry_at' is null and activity_type = 'fail_relay_sync'",
        )
        .fetch_one(&world.db).await.unwrap();
        gave_up == 4
    })
    .await;
    zooid.refuse(false);
    within(RECOVERY, "all are synced", async || synced(&world).await == 4).await;
    assert_in_step(&world, &zooid).await;
    let overspent: i64 =
        sqlx::query_scalar("select count(*) from activity where (detail->>'attempt')::int > 3")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!(overspent, 0);
    worker.kill().await;
}
