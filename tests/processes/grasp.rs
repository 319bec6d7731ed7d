//! GRASP with real processes: killed, frozen, stopped.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use tender_jobs::grasp::GRASP;

use crate::support::{
    eventually, grasp::GraspWorld, line::Line, process::Tender, relays::RealRelay,
};

const PRODUCTION: (&str, &str) = ("MIRROR_PROFILE", "production");

fn start(world: &GraspWorld) -> Tender {
    Tender::start_mirror(&world.mirror, &["work"], &[PRODUCTION])
}

async fn number(world: &GraspWorld, query: &'static str) -> i64 {
    sqlx::query_scalar(query).fetch_one(&world.db).await.unwrap()
}

/// The items that were confirmed up to now, and not again since.
async fn confirmed_before(world: &GraspWorld, at: chrono::DateTime<chrono::Utc>) -> i64 {
    let count = sqlx::query_scalar("select count(*) from grasp_coverage where confirmed_at <= $1");
    count.bind(at).fetch_one(&world.db).await.unwrap()
}

/// Lets the leases and heartbeats of dead processes end.
async fn expire(world: &GraspWorld) {
    world.sql("update grasp_relay set lease_until = now() where lease_owner is not null").await;
    world.sql("update grasp_process set seen_at = now() - interval '1 hour'").await;
    world.mirror.expire_workers().await;
}

#[tokio::test]
async fn a_killed_process_leaves_confirmed_items_confirmed_and_the_others_missing() {
    let world = GraspWorld::new().await;
    let (a, b) = (RealRelay::start().await, RealRelay::start().await);
    let (good, slow) = (Line::to(&a.url).await, Line::to(&b.url).await);
    slow.stall();
    let first: Vec<_> = (0..150)
        .map(|number| world.issue("tool", world.at + number, &format!("a {number}")))
        .collect();
    let second: Vec<_> = (0..150)
        .map(|number| world.issue("tool", world.at + number, &format!("b {number}")))
        .collect();
    a.add(&first).await;
    b.add(&second).await;
    world.serve(&[]).await;
    world.own.add(&[world.announcement("tool", &[&good.url, &slow.url], world.at)]).await;
    let mut process = start(&world);
    world.arrives("the history of the relay that answers", &first.iter().collect::<Vec<_>>()).await;
    world.is_in_step(&good.url).await;
    eventually("items of the stalled relay are in flight", async || {
        number(&world, "select count(*) from grasp_coverage where state = 'in_flight'").await > 0
    })
    .await;
    process.kill().await;
    let killed_at = tender_jobs::queue::now(&world.db).await.unwrap();
    let confirmed = confirmed_before(&world, killed_at).await;
    assert!(confirmed > 0);
    slow.resume();
    expire(&world).await;
    let _again = start(&world);
    world.arrives("the history of both", &first.iter().chain(&second).collect::<Vec<_>>()).await;
    world.is_covered().await;
    let again = confirmed_before(&world, killed_at).await;
    assert_eq!(again, confirmed, "confirmed items were fetched again");
    assert_eq!(world.accepted().await.len(), 301);
}

#[tokio::test]
async fn two_processes_share_relays_and_take_over_from_each_other() {
    let world = GraspWorld::new().await;
    let mut relays = Vec::new();
    for _ in 0..10 {
        let relay = RealRelay::start().await;
        let line = Line::to(&relay.url).await;
        relays.push((relay, line));
    }
    let urls: Vec<&str> = relays.iter().map(|(_, line)| line.url.as_str()).collect();
    world.serve(&urls).await;
    let mut first = start(&world);
    let second = start(&world);
    let is_shared = async || {
        number(&world, "select count(*) from grasp_relay where status = 'in_step'").await == 10
            && number(&world, "select count(distinct lease_owner) from grasp_relay").await == 2
    };
    eventually("both processes hold relays, and all are in step", is_shared).await;
    for (_, line) in &relays {
        assert_eq!(line.open(), (1, 1), "one socket per relay");
    }
    first.kill().await;
    world
        .sql(
            "update grasp_relay set lease_until = now() where lease_owner in
             (select lease_owner from grasp_relay group by 1 limit 1)",
        )
        .await;
    expire(&world).await;
    let is_taken = async || {
        number(
            &world,
            "select count(*) from grasp_relay where status = 'in_step' and lease_until > now()",
        )
        .await
            == 10
            && number(&world, "select count(distinct lease_owner) from grasp_relay").await == 1
    };
    eventually("the other process has taken over", is_taken).await;
    for (_, line) in &relays {
        eventually("one socket per relay", async || line.open().0 == 1).await;
    }
    second.signal(Signal::SIGTERM);
}

#[tokio::test]
async fn a_frozen_process_loses_its_relays_and_writes_nothing_afterwards() {
    let world = GraspWorld::new().await;
    let a = RealRelay::start().await;
    let line = Line::to(&a.url).await;
    world.serve(&[&line.url]).await;
    let frozen = start(&world);
    world.is_in_step(&line.url).await;
    frozen.freeze(&world.db).await;
    let epoch = number(&world, "select max(lease_epoch) from grasp_relay").await;
    expire(&world).await;
    let _other = start(&world);
    eventually("another process holds the relay", async || {
        number(&world, "select max(lease_epoch) from grasp_relay").await > epoch
    })
    .await;
    world.is_in_step(&line.url).await;
    let taken = number(&world, "select max(lease_epoch) from grasp_relay").await;
    frozen.signal(Signal::SIGCONT);
    let event = world.announcement("tool", &[&line.url], world.at);
    a.add(std::slice::from_ref(&event)).await;
    world.arrives("the event", &[&event]).await;
    eventually("one socket is left", async || line.open().0 == 1).await;
    assert_eq!(number(&world, "select max(lease_epoch) from grasp_relay").await, taken);
    assert_eq!(
        number(&world, "select count(*) from grasp_relay where status = 'in_step'").await,
        1
    );
}

#[tokio::test]
async fn a_stopped_process_leaves_no_lease_and_nothing_in_flight() {
    let world = GraspWorld::new().await;
    let b = RealRelay::start().await;
    let line = Line::to(&b.url).await;
    line.stall();
    world.serve(&[&line.url]).await;
    let mut process = start(&world);
    process.serves(&world.db, GRASP).await;
    eventually("a batch is in flight", async || {
        number(&world, "select count(*) from grasp_coverage where state = 'in_flight'").await > 0
    })
    .await;
    let begun = Instant::now();
    process.signal(Signal::SIGTERM);
    assert!(process.wait().await.success(), "{}", process.log());
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert_eq!(
        number(&world, "select count(*) from grasp_coverage where state = 'in_flight'").await,
        0
    );
    assert_eq!(
        number(&world, "select count(*) from grasp_relay where lease_owner is not null").await,
        0
    );
    assert_eq!(number(&world, "select count(*) from grasp_batch where status = 'open'").await, 0);
}
