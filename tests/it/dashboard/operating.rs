//! Operators pause and scale queues, start recurring jobs and drain processes; each is recorded.

use std::collections::BTreeMap;

use serde_json::json;
use tender_jobs::{
    PRUNE,
    console::operator,
    queue::{
        self, NewJob,
        process::{self, Report, Served},
        schedule,
    },
};

use super::{
    Site,
    queue_pages::{execute, row, shows},
};
use crate::support::schedule as runs;

/// A process that serves one queue.
async fn report(site: &Site, queue: &str, jobs: usize) -> uuid::Uuid {
    let served = Served { jobs, configured: 16 };
    let report = Report {
        id: uuid::Uuid::new_v4(),
        name: "1.2.3 web-1:42".to_owned(),
        wings: vec!["provision".to_owned(), "mirror".to_owned()],
        stations: BTreeMap::from([(queue.to_owned(), served)]),
        memory_bytes: Some(50_000_000),
    };
    process::report(&site.api.world.db, &report).await.unwrap();
    report.id
}

#[tokio::test]
async fn a_queue_is_paused_with_a_reason() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let db = &site.api.world.db;
    let form = |reason| [("form_token", token.as_str()), ("confirmed", "yes"), ("reason", reason)];
    let long = "x".repeat(301);
    for (place, reason) in ["", "  ", long.as_str()].into_iter().enumerate() {
        site.post("/queues/prune/pause", &cookie, &form(reason)).await;
        assert!(queue::paused(db).await.unwrap().is_empty(), "{reason}");
        let refused = operator::last(db, 10).await.unwrap();
        let words = "Not done: the action needs a reason of 1 to 300 characters.";
        assert_eq!(refused.iter().filter(|action| action.result == words).count(), place + 1);
    }
    site.post("/queues/prune/pause", &cookie, &form("<a new disk>")).await;
    let page = site.text("/queues", &cookie).await;
    let state = row(&page, r#"data-label="Queue">prune<"#);
    shows(state, &[">paused<", "&lt;a new disk&gt;", ">Resume<"]);
    site.post("/queues/prune/resume", &cookie, &form("")).await;
    assert!(queue::paused(db).await.unwrap().is_empty());
}

#[tokio::test]
async fn the_fleet_runs_more_jobs_of_a_queue_until_it_is_back_to_its_configuration() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let db = &site.api.world.db;
    report(&site, "sync-relay", 16).await;
    report(&site, "sync-relay", 16).await;
    let flow = async || {
        let page = site.text("/queues", &cookie).await;
        let (_, flow) = page.split_once(r#"id="flow""#).unwrap();
        row(flow, r#"data-label="Queue">sync-relay<"#).to_owned()
    };
    shows(&flow().await, &["2 processes", r#"data-label="Jobs at once"><div>16 "#, " of 32"]);
    let form = |jobs| {
        [
            ("form_token", token.as_str()),
            ("confirmed", "yes"),
            ("jobs", jobs),
            ("reason", "a crowd"),
        ]
    };
    for wrong in ["0", "1001", "-1", "many", ""] {
        site.post("/queues/sync-relay/scale", &cookie, &form(wrong)).await;
        assert!(queue::scaled(db).await.unwrap().is_empty(), "{wrong}");
    }
    site.post("/queues/sync-relay/scale", &cookie, &form("40")).await;
    let scaled = queue::scaled(db).await.unwrap().remove(0);
    assert_eq!((scaled.jobs, scaled.reason.as_deref()), (40, Some("a crowd")));
    shows(
        &flow().await,
        &["<strong>40</strong>", "a crowd", "(configured: 16)", "Back to configured"],
    );
    let who = site.api.admin.public_key().to_hex();
    let last = operator::last(db, 1).await.unwrap().remove(0);
    assert_eq!((last.who, last.action.as_str()), (who, "scale_queue"));
    site.post("/queues/sync-relay/unscale", &cookie, &form("")).await;
    assert!(queue::scaled(db).await.unwrap().is_empty());
}

#[tokio::test]
async fn queues_show_rates_waits_and_durations() {
    let site = Site::new().await;
    let (cookie, _) = site.log_in(&site.api.admin).await;
    let db = &site.api.world.db;
    let jobs: Vec<_> = (0..10).map(|_| NewJob::new(PRUNE, &json!({}))).collect();
    queue::enqueue(db, &jobs).await.unwrap();
    execute(
        &site,
        "update apalis.jobs set status = 'Done', done_at = now(), lock_at = now() - interval '4 s',
                                run_at = now() - interval '6 s' where job_type = 'prune'",
    )
    .await;
    let flow = queue::flow(db, &[PRUNE, "mirror"]).await.unwrap();
    let prune = &flow[PRUNE];
    assert!((prune.added - 2.0).abs() < 0.1, "10 in 5 min: {}", prune.added);
    assert!((prune.ended - 2.0).abs() < 0.1, "{}", prune.ended);
    assert_eq!((prune.waited, prune.took), (Some([2.0, 2.0]), Some([4.0, 4.0])));
    assert!(flow["mirror"].took.is_none() && flow["mirror"].added < 0.01);
    let page = site.text("/queues", &cookie).await;
    let (_, flow) = page.split_once(r#"id="flow""#).unwrap();
    shows(
        row(flow, r#"data-label="Queue">prune<"#),
        &["2.0 s", "4.0 s", r#"data-label="In per min">2.0<"#],
    );
}

#[tokio::test]
async fn the_schedule_shows_runs_and_starts_one() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let db = &site.api.world.db;
    assert!(site.text("/schedule", &cookie).await.contains("No recurring job is known"));
    runs::plan(db, "upkeep", "prune", "0 */5 * * * *").await;
    let form = [("form_token", token.as_str()), ("confirmed", "yes")];
    site.post("/schedule/prune/run", &cookie, &form).await;
    let last = async || operator::last(db, 1).await.unwrap().remove(0).result;
    assert!(last().await.starts_with("Not done:"), "no process has told what a run enqueues");
    let run = NewJob::new(PRUNE, &json!({ "v": 1 })).priority(5).max_attempts(1);
    schedule::remember(db, "prune", &run).await.unwrap();
    for (n, error) in [None, Some("no disk")].into_iter().enumerate() {
        let job = runs::start(db, "prune").await;
        execute(&site, "update recurring_job set last_started_at = now() - interval '3 s'").await;
        runs::end(db, &job, "prune", error).await;
        assert_eq!(schedule::runs(db, 30).await.unwrap().len(), n + 1);
    }
    let page = site.text("/schedule", &cookie).await;
    let shown = row(&page, r#"id="recurring-prune""#);
    shows(shown, &["every 5 min", ">failed<", "no disk", "2 runs", "3.0 s", "Run now", "upkeep"]);
    site.post("/schedule/prune/run", &cookie, &form).await;
    assert!(last().await.contains("is due now"), "{}", last().await);
    let key: String = sqlx::query_scalar(
        "select idempotency_key from apalis.jobs where job_type = 'prune' and status = 'Pending'",
    )
    .fetch_one(db)
    .await
    .unwrap();
    assert!(key.starts_with("prune@asked-"), "{key}");
    // At most 100 runs are kept.
    for _ in 0..105 {
        runs::run(db, "prune", None).await;
    }
    assert_eq!(schedule::runs(db, 1000).await.unwrap().len(), 100);
}

#[tokio::test]
async fn a_process_is_drained_and_takes_jobs_again() {
    let site = Site::new().await;
    let (cookie, token) = site.log_in(&site.api.admin).await;
    let db = &site.api.world.db;
    let id = report(&site, "sync-relay", 40).await;
    execute(&site, "update apalis.workers set layers = '1.2.3 web-1:42', last_seen = now() + interval '10 min'").await;
    let job = site.api.world.fetch().await;
    queue::start(db, &job).await.unwrap();
    let anchor = format!(r#"id="process-{id}""#);
    let page = site.text("/processes", &cookie).await;
    let shown = row(&page, &anchor);
    shows(
        shown,
        &[
            "web-1:42",
            "version 1.2.3",
            "provision, mirror",
            "50.0 MB",
            "× 40",
            "(configured: 16)",
            "1 of sync-relay",
            "takes jobs",
        ],
    );
    assert!(!site.text("/processes?queue=prune", &cookie).await.contains(&anchor));
    let form = |reason| [("form_token", token.as_str()), ("confirmed", "yes"), ("reason", reason)];
    site.post(&format!("/processes/{id}/drain"), &cookie, &form("")).await;
    assert!(process::processes(db).await.unwrap()[0].drain_at.is_none(), "a reason is needed");
    site.post(&format!("/processes/{id}/drain"), &cookie, &form("a new kernel")).await;
    let page = site.text("/processes", &cookie).await;
    shows(row(&page, &anchor), &[">draining<", "a new kernel", "Take jobs again"]);
    site.post(&format!("/processes/{id}/undrain"), &cookie, &form("")).await;
    assert!(process::processes(db).await.unwrap()[0].drain_at.is_none());
    let actions: Vec<_> = operator::last(db, 3).await.unwrap();
    let actions: Vec<_> = actions.iter().map(|action| action.action.as_str()).collect();
    assert_eq!(actions, ["undrain_process", "drain_process", "drain_process"]);
    execute(&site, "update process set last_seen_at = now() - interval '1 min'").await;
    shows(row(&site.text("/processes", &cookie).await, &anchor), &[">dead<"]);
}
