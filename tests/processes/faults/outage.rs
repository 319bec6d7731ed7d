//! zooid away: the breaker keeps the attempts of relays, and notices the end without a rush of calls.

use std::time::{Duration, Instant};

use tender::demo::zooid::Fault;

use super::{RECOVERY, assert_in_step, create_relays, synced};
use crate::{
    stand_in,
    support::{World, eventually, process::Tender, within},
};

const RELAYS: i64 = 500;
const MAX_IN_FLIGHT: u32 = 8;

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_exhausts_nobody_and_its_end_is_noticed_without_a_rush() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.refuse(true);
    let in_flight = MAX_IN_FLIGHT.to_string();
    // A retry every second and a probe every second at most: without the breaker, each relay would
    // spend an attempt per probe.
    let environment = [
        ("RELAY_SYNC_RETRY_BASE_SECS", "1"),
        ("RELAY_SYNC_RETRY_CAP_SECS", "1"),
        ("BREAKER_WAIT_SECS", "0.1"),
        ("BREAKER_WAIT_CAP_SECS", "1"),
        ("ZOOID_MAX_IN_FLIGHT", in_flight.as_str()),
    ];
    create_relays(&world, "relay", usize::try_from(RELAYS).unwrap()).await;
    let start = || Tender::start(&world, &zooid.url(), &["work"], &environment);
    let workers = [start(), start()];
    within(RECOVERY, "the outage lasts", async || failed_probes(&world).await >= 6).await;
    let (exhausted, most_attempts): (i64, i32) = sqlx::query_as(
        "select count(*) filter (where exhausted_at is not null), max(attempts) from relay",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert_eq!(exhausted, 0);
    assert!(most_attempts <= 2, "the outage spent {most_attempts} attempts of one relay");

    // Calls take their time from now on, so that too many at once would show.
    zooid.plan(None, Fault::Delay(Duration::from_millis(5)), None);
    zooid.refuse(false);
    let up = Instant::now();
    within(RECOVERY, "the breaker closes", async || failed_probes(&world).await < 0).await;
    println!("the breaker closed {:?} after zooid's return", up.elapsed());
    within(RECOVERY, "all are synced", async || synced(&world).await == RELAYS).await;
    println!("all {RELAYS} were synced {:?} after zooid's return", up.elapsed());
    assert_in_step(&world, &zooid).await;
    assert!(zooid.most_in_flight() <= MAX_IN_FLIGHT, "{} at once", zooid.most_in_flight());
    drop(workers);
}

/// Failed probes of the open breaker; -1 while it is closed.
async fn failed_probes(world: &World) -> i32 {
    sqlx::query_scalar(
        "select coalesce(max(failed_probes) filter (where opened_at is not null), -1) from zooid_instance",
    )
    .fetch_one(&world.db)
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_instance_that_is_out_does_not_hold_up_another() {
    let (world, out, well) = (World::new().await, stand_in().await, stand_in().await);
    out.refuse(true);
    for number in 0..60 {
        let relay = world.relay(&format!("relay-{number}")).await;
        let domain = if number % 2 == 0 { "out.test" } else { "zooid.test" };
        sqlx::query("update relay set zooid_domain = $2 where id = $1")
            .bind(relay.id.as_str())
            .bind(domain)
            .execute(&world.db)
            .await
            .unwrap();
    }
    let instances = format!("out.test={},zooid.test={}", out.url(), well.url());
    let worker = Tender::start(&world, &well.url(), &["work"], &[("ZOOID_INSTANCES", &instances)]);
    eventually("the other's relays are synced", async || {
        let synced: i64 = sqlx::query_scalar(
            "select count(*) from relay where zooid_domain = 'zooid.test' and synced",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        synced == 30
    })
    .await;
    eventually("the breaker of the one that is out opens", async || {
        let open: Vec<String> =
            sqlx::query_scalar("select name from zooid_instance where opened_at is not null")
                .fetch_all(&world.db)
                .await
                .unwrap();
        open == [out.url()]
    })
    .await;
    drop(worker);
}
