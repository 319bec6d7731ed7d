//! A queue paused under load: every process obeys, also one that starts meanwhile.

use std::time::{Duration, Instant};

use tender::demo::zooid::Fault;

use crate::{
    RECOVERY, assert_in_step, stand_in,
    support::{
        World, eventually,
        process::{Tender, run},
        within,
    },
    synced,
};

#[tokio::test(flavor = "multi_thread")]
async fn every_process_obeys_a_pause_within_five_seconds_also_after_a_restart() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Delay(Duration::from_millis(20)), None);
    let start =
        || Tender::start(&world, &zooid.url(), &["work"], &[("RELAY_SYNC_CONCURRENCY", "4")]);
    let mut workers = [start(), start()];
    for number in 0..400 {
        world.relay(&format!("relay-{number}")).await;
    }
    eventually("the load runs", async || synced(&world).await >= 40).await;
    let url = world.database.url();
    let environment = [("DATABASE_URL", url.as_str())];
    let paused = run(&["queue", "pause", "sync-relay"], &environment).await;
    assert!(paused.status.success(), "{paused:?}");
    let asked = Instant::now();
    eventually("nobody runs anything", async || {
        let running: i64 = sqlx::query_scalar(
            "select count(*) from apalis.jobs where status in ('Queued', 'Running') and job_type = 'sync-relay'",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        running == 0
    })
    .await;
    assert!(asked.elapsed() < Duration::from_secs(5), "{:?}", asked.elapsed());

    let calls = zooid.calls().len();
    assert!(calls < 400, "the pause came too late to show anything");
    workers[0].kill().await;
    workers[0] = start();
    world.relay("meanwhile").await;
    // Three polls of everybody, and the new process's start.
    let beats = "select count(*) from apalis.workers where worker_type = 'sync-relay' and started_at > now() - interval '1 min' and last_seen > started_at + interval '4 s'";
    eventually("the new process has looked", async || {
        let looked: i64 = sqlx::query_scalar(beats).fetch_one(&world.db).await.unwrap();
        looked >= 2
    })
    .await;
    assert_eq!(zooid.calls().len(), calls, "nothing was called while it was paused");

    let resumed = run(&["queue", "resume", "sync-relay"], &environment).await;
    assert!(resumed.status.success(), "{resumed:?}");
    within(RECOVERY, "all are synced", async || synced(&world).await == 401).await;
    assert_in_step(&world, &zooid).await;
}
