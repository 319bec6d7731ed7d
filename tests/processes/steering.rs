//! The commands that steer: pause, retry, resync, and those that show who works on what.

use serde_json::Value;
use tender::demo::zooid::Fault;
use tender_jobs::console::operator::Outcome;
use tender_jobs::{provision::SYNC_RELAY, queue};

use crate::{
    stand_in,
    support::{
        World, eventually,
        process::{Tender, run},
    },
};

/// Runs a command on the world's database; its JSON.
async fn json(world: &World, arguments: &[&str]) -> Value {
    let url = world.database.url();
    let output = run(&[arguments, &["--json"]].concat(), &[("DATABASE_URL", &url)]).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_the_schedule_are_shown() {
    let (world, zooid) = (World::new().await, stand_in().await);
    let worker = Tender::start(
        &world,
        &zooid.url(),
        &["work", "--queue", "sync-relay=3", "--queue", "reconcile"],
        &[],
    );
    worker.serves(&world.db, SYNC_RELAY).await;
    worker.serves(&world.db, "reconcile").await;
    let workers = json(&world, &["workers"]).await;
    let is_new = |w: &&Value| w["process"].as_str().is_some_and(|p| p.starts_with("0."));
    let queues: Vec<_> =
        workers.as_array().unwrap().iter().filter(is_new).map(|w| w["queue"].clone()).collect();
    assert_eq!(queues, ["reconcile", "sync-relay"]);

    eventually("the schedule is planned and its first run is over", async || {
        let schedule = queue::schedule::list(&world.db).await.unwrap();
        let reconcile = schedule.iter().find(|row| row.name == "reconcile");
        reconcile.is_some_and(|row| row.next_at.is_some() && row.last_ended_at.is_some())
    })
    .await;
    let schedule = json(&world, &["schedule"]).await;
    let shown = schedule.as_array().unwrap().iter().find(|row| row["name"] == "reconcile").unwrap();
    assert!(shown["next_at"].is_string() && shown["last_ended_at"].is_string(), "{shown}");
    let top = json(&world, &["top"]).await;
    assert_eq!(top["fleet"]["summary"]["total"], 0);
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_of_all_carries_every_relay_again_and_is_one_at_a_time() {
    let (world, zooid) = (World::new().await, stand_in().await);
    for number in 0..30 {
        world.relay(&format!("relay-{number}")).await;
    }
    let worker = Tender::start(&world, &zooid.url(), &["work", "--queue", SYNC_RELAY], &[]);
    let synced = async || -> i64 {
        sqlx::query_scalar(
            "select count(*) from relay where synced and synced_generation = generation",
        )
        .fetch_one(&world.db)
        .await
        .unwrap()
    };
    eventually("all are synced", async || synced().await == 30).await;
    json(&world, &["relay", "sync", "--all", "--rate", "4"]).await;
    let again = json(&world, &["relay", "sync", "--all"]).await;
    assert!(again["done"].as_str().unwrap().contains("is already running"), "{again}");
    // Twenty at a time, five seconds apart.
    let resync = Tender::start(&world, &zooid.url(), &["work", "--queue", "resync"], &[]);
    eventually("every relay was asked for again", async || {
        let lowest: i64 = sqlx::query_scalar("select min(synced_generation) from relay")
            .fetch_one(&world.db)
            .await
            .unwrap();
        lowest == 2
    })
    .await;
    eventually("the resync has ended", async || {
        let filter = queue::JobFilter { queue: Some("resync".to_owned()), ..Default::default() };
        let jobs = queue::jobs(&world.db, &filter, &queue::Page::First, 10).await.unwrap();
        jobs[0].state == queue::JobState::Done
    })
    .await;
    let jobs = json(&world, &["queue", "list", "--queue", "resync"]).await;
    assert_eq!(jobs[0]["state"], "done");
    let answered = zooid.calls().iter().filter(|call| call.status.is_some()).count();
    assert_eq!(answered, 60, "each relay was carried twice");
    drop((worker, resync));
}

#[tokio::test(flavor = "multi_thread")]
async fn retry_all_takes_what_matches_and_leaves_what_is_in_step() {
    let world = World::new().await;
    world.zooid.plan(None, Fault::Status(422, None), Some(3));
    for number in 0..3 {
        world.relay(&format!("refused-{number}")).await;
        world.attempt().await;
    }
    let arguments =
        ["queue", "retry", "--all", "--where", "queue=sync-relay", "--where", "state=killed"];
    let other = [&arguments[..], &["--where", "error=no such words"]].concat();
    assert_eq!(json(&world, &other).await["retried"], 0);
    let matching = [&arguments[..], &["--where", "error=422"]].concat();
    assert_eq!(json(&world, &matching).await["retried"], 3);
    for _ in 0..3 {
        world.make_due().await;
        world.attempt().await;
    }
    assert_eq!(world.zooid.len(), 3);
    assert_eq!(json(&world, &arguments).await["retried"], 0, "all are in step");
    let actions = tender_jobs::console::operator::last(&world.db, 10).await.unwrap();
    assert_eq!(
        actions
            .iter()
            .filter(|one| one.action == "retry_jobs" && one.outcome == Outcome::Done)
            .count(),
        3
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_into_the_dashboard_is_printed_and_sessions_are_ended() {
    let world = World::new().await;
    let link = json(&world, &["dashboard-link"]).await;
    assert!(
        link["url"].as_str().unwrap().starts_with("http://127.0.0.1:4848/dashboard/link?token=")
    );
    let ended = json(&world, &["dashboard-link", "--end-sessions", "--yes"]).await;
    assert_eq!(ended["done"], "0 sessions ended");
}
