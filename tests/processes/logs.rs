//! The log, as programs read it.

use serde_json::{Value, json};
use tender::demo::zooid::Fault;
use tender_jobs::{mirror::lane::LaneKind, provision::SYNC_RELAY};

use crate::{
    stand_in,
    support::{
        World, eventually,
        mirror::{MirrorWorld, days},
        process::Tender,
    },
};

/// The lines of a process, each of them JSON.
fn lines(process: &Tender) -> Vec<Value> {
    let log = process.log();
    // The last line may not be whole yet.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| serde_json::from_str(line).expect(line)).collect()
}

fn warnings<'a>(lines: &'a [Value], words: &str) -> Vec<&'a Value> {
    let is_warning = |line: &&Value| line["level"] == "WARN" || line["level"] == "ERROR";
    let is_about =
        |line: &&Value| line["message"].as_str().is_some_and(|text| text.contains(words));
    lines.iter().filter(is_warning).filter(is_about).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_fails_again_and_again_is_one_warning_with_its_host() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Status(500, None), Some(3));
    let relay = world.relay("alpha").await;
    let more = [
        ("LOG_FORMAT", "json"),
        ("RELAY_SYNC_RETRY_BASE_SECS", "1"),
        ("RELAY_SYNC_RETRY_CAP_SECS", "1"),
        ("RELAY_SYNC_RETRY_JITTER", "0"),
    ];
    let work = ["work", "--queue", SYNC_RELAY];
    let worker = Tender::start(&world, &zooid.url(), &work, &more);
    let synced = |line: &Value| line["message"] == "relay synced";
    eventually("it is synced", async || lines(&worker).iter().any(synced)).await;
    let lines = lines(&worker);
    let failed = warnings(&lines, "relay not synced");
    assert_eq!(failed.len(), 1, "{failed:?}");
    let line = lines.iter().find(|line| synced(line)).unwrap();
    for line in [failed[0], line] {
        let text = line.to_string();
        assert_eq!(text.matches(relay.id.as_str()).count(), 1, "{text}");
        assert_eq!(line["spans"][0]["relay.host"], "alpha.zooid.test", "{text}");
    }
    assert!(line["duration_ms"].is_u64() && line["generation"].is_i64(), "{line}");
    assert_eq!(line["spans"][0]["job.attempt"], 4, "{line}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_is_one_error_and_its_end_counts_the_relays_that_waited() {
    let (world, zooid) = (World::new().await, stand_in().await);
    zooid.plan(None, Fault::Status(502, None), None);
    for number in 0..40 {
        world.relay(&format!("out-{number}")).await;
    }
    let work = ["work", "--queue", SYNC_RELAY];
    let worker = Tender::start(&world, &zooid.url(), &work, &[("LOG_FORMAT", "json")]);
    let held = "select count(*) from apalis.jobs where metadata->'held_by' is not null";
    eventually("relays wait", async || {
        let held: i64 = sqlx::query_scalar(held).fetch_one(&world.db).await.unwrap();
        held >= 20
    })
    .await;
    zooid.heal();
    eventually("all are in step", async || {
        // The probe is due at once.
        let due = "update zooid_instance set retry_at = now() where opened_at is not null;
            update apalis.jobs set run_at = now() where run_at > now() + interval '2 s'";
        sqlx::raw_sql(due).execute(&world.db).await.unwrap();
        let left = "select count(*) from relay where not synced";
        sqlx::query_scalar::<_, i64>(left).fetch_one(&world.db).await.unwrap() == 0
    })
    .await;
    let again = |line: &Value| line["message"] == "zooid answers again; its relays go on";
    eventually("the end is logged", async || lines(&worker).iter().any(again)).await;
    let lines = lines(&worker);
    let told = warnings(&lines, "");
    let errors: Vec<_> = told.iter().filter(|line| line["level"] == "ERROR").collect();
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0]["message"].as_str().unwrap().starts_with("zooid is out"), "{errors:?}");
    assert_eq!(errors[0]["instance"], zooid.url(), "{errors:?}");
    let failed = warnings(&lines, "relay not synced");
    assert_eq!(failed.len(), 1, "the failures before it are one warning: {failed:?}");
    let waited = lines.iter().find(|line| again(line)).unwrap()["waited"].as_u64();
    // Those whose attempt ran when the outage ended did not wait.
    assert!(waited >= Some(10), "{waited:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_is_dead_is_one_warning_for_each_lane() {
    let world = MirrorWorld::new().await;
    let upstream = world.upstream("ws://127.0.0.1:1", json!({ "config": days(1) })).await;
    let worker =
        Tender::start_mirror(&world, &["work", "--queue", "mirror"], &[("LOG_FORMAT", "json")]);
    worker.serves(&world.db, "mirror").await;
    world.trigger(&upstream, LaneKind::Backfill).await;
    eventually("the lane gave up for a while", async || {
        // The attempts follow at once.
        sqlx::query(
            "update apalis.jobs set run_at = now() where job_type = 'mirror' and run_at > now()",
        )
        .execute(&world.db)
        .await
        .unwrap();
        world.lane(&upstream, LaneKind::Backfill).await.status == "error"
    })
    .await;
    let lines = lines(&worker);
    let failed = warnings(&lines, "lane failed");
    assert_eq!(failed.len(), 1, "{failed:?}");
    assert_eq!(failed[0]["url"], "ws://127.0.0.1:1");
    assert!(failed[0]["next_secs"].is_u64(), "{failed:?}");
}
