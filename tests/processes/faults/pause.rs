//! A queue paused under load: every process obeys, also one that starts meanwhile.

use std::{collections::HashSet, time::Duration};

use tender::demo::zooid::{Fault, Gate};
use tender_jobs::{provision::SYNC_RELAY, queue};

use super::{RECOVERY, assert_in_step, create_relays, reached, synced};
use crate::{
    stand_in,
    support::{
        World, eventually,
        process::{Tender, run},
        within,
    },
};

#[tokio::test(flavor = "multi_thread")]
async fn every_process_obeys_a_pause_also_after_a_restart() {
    let (world, zooid) = (World::new().await, stand_in().await);
    // The first calls are held, so that every process is at work when the pause comes.
    let gate = Gate::default();
    zooid.plan(None, Fault::Hold(gate.clone()), Some(8));
    let start =
        || Tender::start(&world, &zooid.url(), &["work"], &[("RELAY_SYNC_CONCURRENCY", "4")]);
    let mut workers = [start(), start()];
    for worker in &workers {
        worker.serves(&world.db, SYNC_RELAY).await;
    }
    create_relays(&world, "relay", 40).await;
    reached(&gate, 8).await;

    let url = world.database.url();
    let environment = [("DATABASE_URL", url.as_str())];
    let paused = run(&["queue", "pause", "sync-relay"], &environment).await;
    assert!(paused.status.success(), "{paused:?}");
    create_relays(&world, "late", 20).await;
    gate.open();
    eventually("fetched jobs end", async || {
        let held: i64 = sqlx::query_scalar(
            "select count(*) from apalis.jobs where status in ('Queued', 'Running') and job_type = 'sync-relay'",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        held == 0
    })
    .await;

    let synced_before = synced(&world).await;
    let restarted_at = queue::now(&world.db).await.unwrap();
    workers[0].kill().await;
    workers[0] = start();
    // Both processes have looked for jobs since: they do so every 5 s, and at their start.
    eventually("both processes go on", async || {
        let since = restarted_at + Duration::from_secs(4);
        let all = queue::workers(&world.db).await.unwrap();
        let of_queue = all.iter().filter(|one| one.queue == SYNC_RELAY);
        of_queue.filter(|one| one.last_seen > since).count() >= 2
    })
    .await;
    assert_eq!(synced(&world).await, synced_before, "nothing is synced while the queue is paused");
    let late: Vec<String> =
        sqlx::query_scalar("select id from relay where subdomain like 'late-%'")
            .fetch_all(&world.db)
            .await
            .unwrap();
    let called: HashSet<String> = zooid.calls().into_iter().map(|call| call.relay_id).collect();
    assert_eq!(late.len(), 20);
    assert!(!late.iter().any(|id| called.contains(id)), "no relay made after the pause is called");

    let resumed = run(&["queue", "resume", "sync-relay"], &environment).await;
    assert!(resumed.status.success(), "{resumed:?}");
    within(RECOVERY, "all are synced", async || synced(&world).await == 60).await;
    assert_in_step(&world, &zooid).await;
}
