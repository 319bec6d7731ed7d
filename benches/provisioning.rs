//! Benchmarks of provisioning, on a private PostgreSQL with its usual, durable settings and the
//! in-process stand-in for zooid. Except in `latency`, workers are separate processes.
//!
//! `cargo bench --bench provisioning` runs all parts; `… -- drain` runs only those whose name
//! contains `drain`. `docs/PERFORMANCE.md` has the results of a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a benchmark prints, and may fail"
)]

mod support;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use nostr::key::Keys;
use support::{Bench, by, report, run, session, statements, steady::Steady};
use tender::config::{Config, Env, Needs};
use tender_jobs::{
    provision::relay::{self, Change},
    queue::{self, Cursor, JobFilter, JobState, Page},
};
use tender_workers::{
    Wings,
    provision::zooid::{DEFAULT_TIMEOUT, Zooid, ZooidSettings},
};
use tokio_util::sync::CancellationToken;

fn main() {
    let parts =
        ["latency", "steady", "drain-1", "drain-2", "create", "reconcile", "history", "idle"];
    run(&parts, async |bench, name| match name {
        "latency" => latency(bench).await,
        "steady" => steady(bench).await,
        "drain-1" => drain(bench, 1).await,
        "drain-2" => drain(bench, 2).await,
        "create" => create(bench).await,
        "reconcile" => reconcile(bench).await,
        "history" => history(bench).await,
        _ => idle(bench).await,
    });
}

/// Measures the time from a committed change to its arrival at the stand-in, one change at a time.
async fn latency(bench: &Bench) {
    let config = Config::read(&mut Env::of(bench.environment()), Needs::Zooid).unwrap();
    let zooid = Zooid::new(ZooidSettings {
        default_url: bench.zooid.url().parse().unwrap(),
        instances: HashMap::new(),
        robot: bench.robot.clone(),
        blossom: None,
        livekit: None,
        timeout: DEFAULT_TIMEOUT,
    });
    let wings = Wings {
        provision: Some((Arc::new(zooid.unwrap()), config.provision.clone())),
        mirror: None,
        retention: config.retention,
        history: config.provision.history,
    };
    let stop = CancellationToken::new();
    let (db, stopping) = (bench.db().clone(), stop.clone());
    let workers = tokio::spawn(async move {
        tender_workers::run(&db, config.runtime, wings, stopping).await.unwrap();
    });
    bench.until_workers(1).await;
    let relay = bench.make(0).await;
    bench.until("select count(*) from relay where synced", 1).await;
    let mut waits = Vec::new();
    for number in 0..500 {
        let before = bench.zooid.calls().len();
        let change = Change { info_name: Some(format!("name {number}")), ..Change::default() };
        relay::update(bench.db(), &relay.id, &change, &by()).await.unwrap();
        let committed = Instant::now();
        while bench.zooid.calls().len() == before {
            tokio::task::yield_now().await;
        }
        waits.push(committed.elapsed());
        bench.until("select count(*) from relay where synced", 1).await;
    }
    report("committed change → zooid has it, idle", waits);
    stop.cancel();
    workers.await.unwrap();
}

/// Changes 200 relays per second for a minute, each change on a relay that is in step.
async fn steady(bench: &Bench) {
    let worker = bench.spawn("work");
    bench.until_workers(1).await;
    let relays = bench.in_step(2000).await;
    statements::reset(bench.db()).await;
    let waits = Steady::new(&relays, 200).minutes(bench, 1).await;
    report("200 changes/s, committed change → zooid has it", waits);
    statements::print(bench.db()).await;
    drop(worker);
}

/// Syncs ten thousand new relays with the given number of worker processes.
async fn drain(bench: &Bench, processes: i64) {
    let count = 10_000;
    let workers: Vec<_> = (0..processes).map(|_| bench.spawn("work")).collect();
    bench.until_workers(processes).await;
    bench.insert(count, count).await;
    let enqueued = sqlx::query(support::ENQUEUE).execute(bench.db()).await.unwrap();
    assert_eq!(enqueued.rows_affected(), count as u64);
    // The stand-in counts in this process. To count rows all the time would take more of the database's time than the work.
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while bench.zooid.len() < count as usize {
        look.tick().await;
    }
    bench.until("select count(*) from relay where synced", count).await;
    // Measured from the first call, which excludes the bulk insert and the wait for the first poll.
    let took = bench.zooid.calls()[0].at.elapsed();
    let rate = count as f64 / took.as_secs_f64();
    println!(
        "drain of {count} pending relays by {processes} process(es): {:.2} s, {rate:.0} syncs/s",
        took.as_secs_f64()
    );
    assert_eq!(bench.zooid.len(), count as usize);
    assert!(bench.zooid.overlaps().is_empty());
    drop(workers);
}

/// Creates relays over HTTP, one at a time, while workers run.
async fn create(bench: &Bench) {
    let service = bench.spawn("serve");
    bench.until_workers(1).await;
    let http = reqwest::Client::new();
    let keys = Keys::generate();
    let session = session(&keys, "http://127.0.0.1:4919");
    let mut waits = Vec::new();
    for number in 0..500 {
        let body = format!(r#"{{"subdomain": "relay-{number}"}}"#);
        let request =
            http.post("http://127.0.0.1:4919/relays").header("authorization", &session).body(body);
        let started = Instant::now();
        let response = request.send().await.unwrap();
        waits.push(started.elapsed());
        assert_eq!(response.status(), 201);
    }
    report("create over HTTP, workers running", waits);
    drop(service);
}

/// Reconciles a million relays, of which a thousand are pending and have no job.
async fn reconcile(bench: &Bench) {
    bench.insert(1_000_000, 1000).await;
    sqlx::query("vacuum analyze relay").execute(&bench.bulk()).await.unwrap();
    let mut waits = Vec::new();
    for _ in 0..5 {
        sqlx::query("delete from apalis.jobs").execute(bench.db()).await.unwrap();
        let started = Instant::now();
        let rest = Duration::from_hours(6);
        let enqueued = tender_workers::provision::reconcile(bench.db(), rest).await.unwrap();
        waits.push(started.elapsed());
        assert_eq!(enqueued, 1000);
    }
    report("reconcile, 1,000 pending of 1,000,000", waits);
    let started = Instant::now();
    relay::list(bench.db(), &relay::Search::default(), 100).await.unwrap();
    println!("first page of 100 of 1,000,000 relays: {:?}", started.elapsed());
}

/// Reads the queues beside five million finished jobs, of which ten thousand were killed.
async fn history(bench: &Bench) {
    sqlx::query(
        "insert into apalis.jobs (id, job_type, job, status, attempts, run_at, done_at, last_result, metadata)
         select lpad(n::text, 26, '0'), 'sync-relay',
                convert_to('{\"v\":1,\"relay_id\":\"' || gen_random_uuid() || '\"}', 'UTF8'),
                case when n % 500 = 0 then 'Killed' else 'Done' end, 1,
                now() - make_interval(secs => n * 0.015), now() - make_interval(secs => n * 0.015),
                case when n % 500 = 0 then '{\"Err\": \"zooid answered 422\"}'::jsonb
                     else '{\"Ok\": \"synced\"}'::jsonb end, ''::hstore
         from generate_series(1, 5000000) n",
    )
    .execute(&bench.bulk())
    .await
    .unwrap();
    sqlx::query("vacuum analyze apalis.jobs").execute(&bench.bulk()).await.unwrap();
    let queues = tender_jobs::queues();
    timed("queue status", async || queue::status(bench.db(), &queues).await.map(drop)).await;
    let all = JobFilter::default();
    let middle = queue::now(bench.db()).await.unwrap() - Duration::from_mins(625);
    let middle = Cursor::parse(&format!("ended-{}-x", middle.timestamp_micros())).unwrap();
    let deep = Page::After(middle);
    for (what, page) in [("first page", Page::First), ("page in the middle", deep)] {
        for state in JobState::ALL.into_iter().map(Some).chain([None]) {
            let filter = JobFilter { state, ..all.clone() };
            let what = format!("list, {what}, {}", state.map_or("all", JobState::as_str));
            timed(&what, async || queue::jobs(bench.db(), &filter, &page, 100).await.map(drop))
                .await;
        }
    }
    timed("figures of a queue", async || queue::figures(bench.db(), "sync-relay").await.map(drop))
        .await;
    bench.time_metrics().await;
}

async fn timed(what: &str, read: impl AsyncFn() -> Result<(), sqlx::Error>) {
    let mut waits = Vec::new();
    for _ in 0..20 {
        let started = Instant::now();
        read().await.unwrap();
        waits.push(started.elapsed());
    }
    report(what, waits);
}

/// Measures a process of all wings without jobs for seven minutes, after twelve.
async fn idle(bench: &Bench) {
    for quiet in ["alter system set autovacuum = off", "select pg_reload_conf()"] {
        sqlx::query(quiet).execute(bench.db()).await.unwrap(); // its transactions count, too
    }
    let worker = bench.spawn_with("work", &[("MIRROR_PROFILE", "production")]);
    bench.until_workers(1).await;
    tokio::time::sleep(Duration::from_mins(12)).await; // each statement that a connection prepares counts
    let (before, cpu) = (bench.transactions().await, worker.cpu_seconds());
    tokio::time::sleep(Duration::from_mins(7)).await;
    let seconds = Duration::from_mins(7).as_secs_f64();
    println!(
        "an idle process: {:.2} transactions/s, {:.2} % of a core, {:.1} MB RSS",
        (bench.transactions().await - before) as f64 / seconds,
        100.0 * (worker.cpu_seconds() - cpu) / seconds,
        worker.rss_mb()
    );
}
