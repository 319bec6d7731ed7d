//! Workers killed, stopped and told to stop; zooid away for long.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tender::demo::zooid::Fault;

use crate::{
    RECOVERY, assert_in_step, stand_in,
    support::{World, eventually, process::Tender, within},
    synced,
};

#[tokio::test(flavor = "multi_thread")]
async fn workers_killed_again_and_again_lose_nothing() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Delay(Duration::from_millis(40)), None);
    let start =
        || Tender::start(&world, &zooid.url(), &["work"], &[("RELAY_SYNC_CONCURRENCY", "4")]);
    let mut workers = [start(), start(), start()];
    for number in 0..300 {
        world.relay(&format!("relay-{number}")).await;
    }
    for (round, enough) in [(0, 40), (1, 110), (2, 180)] {
        eventually("some are synced", async || synced(&world).await >= enough).await;
        workers[round].kill().await;
        workers[round] = start();
    }
    // What the killed held comes back when their heartbeats have been missed.
    within(RECOVERY, "all are synced", async || synced(&world).await == 300).await;
    assert_in_step(&world, &zooid).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_told_to_stop_finishes_what_runs_and_exits_with_success() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Delay(Duration::from_secs(1)), None);
    let mut worker = Tender::start(&world, &zooid.url(), &["work", "--concurrency", "2"], &[]);
    for number in 0..8 {
        world.relay(&format!("relay-{number}")).await;
    }
    eventually("two calls run", async || {
        let running: i64 =
            sqlx::query_scalar("select count(*) from relay where lease_until is not null")
                .fetch_one(&world.db)
                .await
                .unwrap();
        running == 2
    })
    .await;
    worker.signal(Signal::SIGTERM);
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
    assert!(synced(&world).await >= 2);
    let mut next = Tender::start(&world, &zooid.url(), &["work"], &[]);
    eventually("the next process does the rest", async || synced(&world).await == 8).await;
    assert_in_step(&world, &zooid).await;
    next.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_ends_the_process_at_once() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Delay(Duration::from_secs(4)), None);
    let mut worker = Tender::start(&world, &zooid.url(), &["work"], &[]);
    world.relay("alpha").await;
    eventually("the call runs", async || {
        let running: i64 =
            sqlx::query_scalar("select count(*) from relay where lease_until is not null")
                .fetch_one(&world.db)
                .await
                .unwrap();
        running == 1
    })
    .await;
    worker.signal(Signal::SIGINT);
    eventually("it says that it stops", async || worker.log().contains("stopping")).await;
    assert!(!worker.has_ended());
    let asked = Instant::now();
    worker.signal(Signal::SIGINT);
    assert_eq!(worker.wait().await.code(), Some(130));
    assert!(asked.elapsed() < Duration::from_secs(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_stopped_past_its_lease_changes_nothing_when_it_goes_on() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let relay = world.relay("alpha").await;
    zooid.plan(None, Fault::Delay(Duration::from_secs(2)), Some(1));
    let mut frozen = Tender::start(&world, &zooid.url(), &["work"], &[]);
    eventually("zooid has the call", async || zooid.in_flight() == 1).await;
    frozen.signal(Signal::SIGSTOP);
    world.rename(&relay, "newer").await;
    world.expire_leases().await;
    let mut other = Tender::start(&world, &zooid.url(), &["work"], &[]);
    eventually("another worker is through", async || world.reload(&relay).await.synced).await;
    let settled = world.reload(&relay).await;
    let records = world.records(&relay).await.len();
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
    // The schedule takes 1 + 1 + … s here; the rest of those that gave up is short as well.
    let schedule = [
        ("RELAY_SYNC_RETRY_BASE_SECS", "1"),
        ("RELAY_SYNC_RETRY_CAP_SECS", "1"),
        ("RECONCILE_SCHEDULE", "* * * * * *"),
        ("RECONCILE_EXHAUSTED_AFTER_SECS", "2"),
    ];
    let mut worker = Tender::start(&world, &zooid.url(), &["work"], &schedule);
    // Too few for the breaker, which would spare them.
    for number in 0..4 {
        world.relay(&format!("relay-{number}")).await;
    }
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
        sqlx::query_scalar("select count(*) from activity where (detail->>'attempt')::int > 7")
            .fetch_one(&world.db)
            .await
            .unwrap();
    assert_eq!(overspent, 0);
    worker.kill().await;
}
