//! The commands that steer: pause, retry, resync, and those that show who works on what.

use serde_json::Value;
use tender::demo::zooid::{Fault, ZooidStandIn};

use crate::support::{
    World, eventually,
    process::{ROBOT_SECRET, Tender, run},
};

async fn zooid() -> ZooidStandIn {
    let robot = nostr::key::Keys::parse(ROBOT_SECRET).unwrap().public_key();
    ZooidStandIn::start(vec![robot]).await.unwrap()
}

/// Runs a command on the world's database; its JSON.
async fn json(world: &World, arguments: &[&str]) -> Value {
    let url = world.database.url();
    let output = run(&[arguments, &["--json"]].concat(), &[("DATABASE_URL", &url)]).await;
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

async fn fails_with(world: &World, arguments: &[&str], words: &str) {
    let url = world.database.url();
    let output = run(arguments, &[("DATABASE_URL", &url)]).await;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains(words), "{arguments:?}: {said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn workers_and_the_schedule_are_shown() {
    let (world, zooid) = (World::new().await, zooid().await);
    let worker = Tender::start(
        &world,
        &zooid.url(),
        &["work", "--queue", "sync-relay=3", "--queue", "reconcile"],
        &[],
    );
    eventually("they are alive", async || {
        let workers = json(&world, &["workers"]).await;
        let is_new = |w: &&Value| w["process"].as_str().is_some_and(|p| p.starts_with("0."));
        let queues: Vec<_> =
            workers.as_array().unwrap().iter().filter(is_new).map(|w| w["queue"].clone()).collect();
        queues == ["reconcile", "sync-relay"]
    })
    .await;
    eventually("the schedule is planned and its first run is over", async || {
        let schedule = json(&world, &["schedule"]).await;
        let rows = schedule.as_array().unwrap();
        rows.iter().any(|row| {
            row["queue"] == "reconcile"
                && row["next_at"].is_string()
                && row["last_ended_at"].is_string()
        })
    })
    .await;
    let top = json(&world, &["top"]).await;
    assert_eq!(top["fleet"]["summary"]["total"], 0);
    fails_with(&world, &["top"], "needs a terminal").await;
    fails_with(&world, &["work", "--queue", "nets"], "there is no queue nets").await;
    fails_with(&world, &["work", "--queue", "sync-relay=0"], "1 to 1000").await;
    drop(worker);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resync_of_all_carries_every_relay_again_and_is_one_at_a_time() {
    let (world, zooid) = (World::new().await, zooid().await);
    for number in 0..30 {
        world.relay(&format!("relay-{number}")).await;
    }
    let worker = Tender::start(&world, &zooid.url(), &["work"], &[]);
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
    assert!(again["done"].as_str().unwrap().contains("goes on already"), "{again}");
    // Twenty at a time, five seconds apart.
    eventually("every relay was asked for again", async || {
        let lowest: i64 = sqlx::query_scalar("select min(synced_generation) from relay")
            .fetch_one(&world.db)
            .await
            .unwrap();
        lowest == 2
    })
    .await;
    eventually("the resync has ended", async || {
        let jobs = json(&world, &["queue", "list", "--queue", "resync"]).await;
        jobs[0]["state"] == "done"
    })
    .await;
    assert_eq!(zooid.calls().len(), 60);
    drop(worker);
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
    fails_with(&world, &["queue", "retry", "--all", "--where", "colour=red"], "is not known").await;
    fails_with(&world, &["queue", "pause", "nets"], "there is no queue nets").await;
    let actions = tender_jobs::operator::last(&world.db, 10).await.unwrap();
    assert_eq!(actions.iter().filter(|action| action.action == "retry_all").count(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_into_the_dashboard_is_printed_and_sessions_are_ended() {
    let world = World::new().await;
    let link = json(&world, &["dashboard-link"]).await;
    assert!(
        link["url"].as_str().unwrap().starts_with("http://127.0.0.1:4848/dashboard/link?token=")
    );
    let ended = json(&world, &["dashboard-link", "--end-sessions"]).await;
    assert_eq!(ended["done"], "0 sessions ended");
}
