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
        ["queue", "retry", "--all", "--yes", "--queue", "sync-relay", "--state", "killed"];
    let other = [&arguments[..], &["--error", "no such words"]].concat();
    assert_eq!(json(&world, &other).await["jobs"], 0);
    let matching = [&arguments[..], &["--error", "422"]].concat();
    assert_eq!(json(&world, &matching).await["jobs"], 3);
    for _ in 0..3 {
        world.make_due().await;
        world.attempt().await;
    }
    assert_eq!(world.zooid.len(), 3);
    assert_eq!(json(&world, &arguments).await["jobs"], 0, "all are in step");
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

#[tokio::test(flavor = "multi_thread")]
async fn all_jobs_that_match_are_cancelled_and_deleted_by_a_command() {
    let world = World::new().await;
    let (alpha, _beta) = (world.relay("alpha").await, world.relay("beta").await);
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, done_at, last_result)
         select state || i, 'prune', '{}', state, now() - i * interval '1 min', '{\"Err\": \"no disk\"}'
         from generate_series(1, 700) i, unnest(array['Killed', 'Done']) state",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let url = world.database.url();
    let typed = async |arguments: &[&str]| {
        let output = run(arguments, &[("DATABASE_URL", &url)]).await;
        let err = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), String::from_utf8(output.stdout).unwrap(), err)
    };
    // The same filters list, and select.
    let listed = json(&world, &["queue", "list", "--host", "alp", "--state", "waiting"]).await;
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["subject"], format!("relay:{}", alpha.id));
    let found = json(&world, &["queue", "list", "--error", "no disk", "--younger", "5min"]).await;
    assert_eq!(found.as_array().unwrap().len(), 4, "killed ones of the last five minutes");

    // Without an answer nothing is done; the question names the filter and the count.
    let delete =
        ["queue", "delete", "--all", "--queue", "prune", "--state", "killed", "--older", "1h"];
    let (code, _, err) = typed(&delete).await;
    assert_eq!(code, Some(2), "{err}");
    let question =
        "queue prune, state killed, older than 3600 s: Delete 641 jobs, done or killed, for good?";
    assert!(err.contains(question), "{err}");
    let left = async |state: &str| -> i64 {
        let count = sqlx::query_scalar("select count(*) from apalis.jobs where status = $1");
        count.bind(state).fetch_one(&world.db).await.unwrap()
    };
    assert_eq!(left("Killed").await, 700);
    let (code, out, err) = typed(&[&delete[..], &["--yes"]].concat()).await;
    assert_eq!((code, out.as_str()), (Some(0), "641 jobs deleted.\n"), "{err}");
    assert_eq!((left("Killed").await, left("Done").await), (59, 700));
    let action = tender_jobs::console::operator::last(&world.db, 1).await.unwrap().remove(0);
    assert_eq!(action.action, "delete_jobs");
    assert_eq!(action.target, "queue prune, state killed, older than 3600 s");
    assert_eq!(action.result, "641 jobs deleted.");

    let (code, out, err) = typed(&["queue", "cancel", "--all", "--host", "alpha", "--yes"]).await;
    assert_eq!((code, out.as_str()), (Some(0), "1 job cancelled.\n"), "{err}");
    assert_eq!(left("Pending").await, 1, "the job of the other relay waits");
    let (code, _, err) = typed(&["queue", "cancel", "--all", "--state", "done", "--yes"]).await;
    assert!(code == Some(2) && err.contains("retrying and waiting jobs only"), "{code:?} {err}");
}
