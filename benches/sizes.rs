//! Benchmark of the queue's and the ledger's steps beside 10,000, 100,000 and 1,000,000 relays, each with five finished jobs.
//!
//! `cargo bench --bench sizes` runs all sizes; `… -- 100k` runs one of them. `docs/PERFORMANCE.md` has the results.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "a benchmark prints, and may fail"
)]

mod support;

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use sqlx::{Executor, PgPool, postgres::PgPoolOptions};
use support::{Bench, report};
use tender_jobs::{
    provision::{
        self, Attempt, Claim, ClaimRequest, Completion, SYNC_RELAY, SyncPayload,
        instance::Instances, relay,
    },
    queue::{self, JobFilter, Page, Retention},
};
use tender_workers::provision::zooid::DEFAULT_TIMEOUT;

/// How often each step is timed.
const TIMES: usize = 50;
/// Relays that are claimed and settled by one statement, as by a busy process.
const BATCH: usize = 16;
const WORKER: &str = "sizes";

fn main() {
    support::run(&["10k", "100k", "1m"], async |bench, name| {
        let relays = match name {
            "10k" => 10_000,
            "100k" => 100_000,
            _ => 1_000_000,
        };
        fill(bench, relays).await;
        println!("{relays} relays, {} finished jobs", relays * 5);
        batches(bench).await;
        reads(bench).await;
        prunes(bench).await;
        bench.time_metrics().await;
    });
}

/// Relays in step, and five finished jobs for each, one of a thousand killed.
async fn fill(bench: &Bench, relays: i64) {
    bench.insert(relays, 0).await;
    let jobs = "insert into apalis.jobs (id, job_type, job, status, attempts, run_at, done_at, last_result, metadata)
                select 'old ' || id || n, 'sync-relay',
                       convert_to(json_build_object('v', 1, 'relay_id', id)::text, 'UTF8'),
                       case when random() < 0.001 then 'Killed' else 'Done' end, 1, at, at, '{\"Ok\": \"synced\"}', ''::hstore
                from (select id, n, now() - random() * interval '20 hours' as at
                      from relay, generate_series(1, 5) n) one";
    let bulk = bench.bulk();
    sqlx::query(jobs).execute(&bulk).await.unwrap();
    for table in ["relay", "apalis.jobs"] {
        let analyze = format!("vacuum analyze {table}");
        sqlx::query(sqlx::AssertSqlSafe(analyze)).execute(&bulk).await.unwrap();
    }
}

/// A session as those of the batches.
async fn session(bench: &Bench) -> PgPool {
    let options = (*bench.db().connect_options()).clone();
    let session = PgPoolOptions::new().max_connections(1).connect_with(options).await.unwrap();
    session.execute(provision::PLANS).await.unwrap();
    session
}

/// Fetches, claims and settles sixteen relays at a time.
async fn batches(bench: &Bench) {
    let db = session(bench).await;
    queue::register(&db, WORKER, SYNC_RELAY, "bench").await.unwrap();
    let instances = Instances {
        default: "bench".to_owned(),
        by_domain: HashMap::new(),
        max_in_flight: 200,
        timeout: DEFAULT_TIMEOUT,
    };
    // The limit of calls in flight grows from a few; sixteen are claimed at once.
    let allowed = "insert into zooid_instance (name, calls_allowed) values ('bench', 200)";
    sqlx::query(allowed).execute(&db).await.unwrap();
    let mut waits = [(); 3].map(|()| Vec::new());
    for _ in 0..TIMES {
        pend(bench).await;
        let started = Instant::now();
        let jobs = queue::fetch(&db, WORKER, SYNC_RELAY, BATCH as i32).await.unwrap();
        waits[0].push(started.elapsed());
        let payload = |job: &queue::Job| serde_json::from_slice::<SyncPayload>(&job.payload);
        let requests: Vec<ClaimRequest> = jobs
            .into_iter()
            .map(|job| ClaimRequest { relay_id: payload(&job).unwrap().relay_id, job })
            .collect();
        assert_eq!(requests.len(), BATCH);
        let started = Instant::now();
        let claims = provision::claim(&db, &requests, &instances).await.unwrap();
        waits[1].push(started.elapsed());
        let completions: Vec<Completion> =
            requests.iter().zip(claims).map(|(request, claim)| settled(request, claim)).collect();
        let started = Instant::now();
        provision::complete(&db, &completions, &instances).await.unwrap();
        waits[2].push(started.elapsed());
    }
    for (what, waits) in ["fetch of 16", "claim of 16", "settle of 16"].into_iter().zip(waits) {
        report(what, waits);
    }
}

/// Changes sixteen relays, and enqueues their jobs.
async fn pend(bench: &Bench) {
    let change = "update relay set generation = generation + 1 where id in (
                      select id from relay where synced and subdomain >= 'r' || floor(random() * 9)::text
                      order by subdomain collate \"C\" limit $1)";
    sqlx::query(change).bind(BATCH as i64).execute(bench.db()).await.unwrap();
    sqlx::query(support::ENQUEUE).execute(bench.db()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(20)).await; // they are due after 10 ms
}

fn settled(request: &ClaimRequest, claim: Claim) -> Completion {
    let Claim::Ready(lease) = claim else { panic!("{claim:?}") };
    let sent = serde_json::json!({ "host": lease.relay.host() });
    Completion { job: request.job.clone(), lease: *lease, attempt: Attempt::default(), sent }
}

async fn reads(bench: &Bench) {
    let (db, queues) = (bench.db(), tender_jobs::queues());
    timed("queue status", async || drop(queue::status(db, &queues).await.unwrap())).await;
    let all = JobFilter::default();
    let list = async || drop(queue::jobs(db, &all, &Page::First, 100).await.unwrap());
    timed("list of 100 jobs", list).await;
    let relays = relay::Search::default();
    timed("list of 100 relays", async || drop(relay::list(db, &relays, 100).await.unwrap())).await;
    let rest = Duration::from_hours(6);
    let reconcile = async || {
        let enqueued = tender_workers::provision::reconcile(db, rest).await.unwrap();
        assert_eq!(enqueued, 0);
    };
    timed("reconcile, nothing pending", reconcile).await;
}

/// Deletes a thousand jobs that are past their retention.
async fn prunes(bench: &Bench) {
    let db = bench.bulk();
    let keep = Retention { done: Duration::from_hours(24), killed: Duration::from_hours(168) };
    let mut waits = Vec::new();
    for _ in 0..10 {
        let age = "update apalis.jobs set done_at = now() - interval '30 hours' where id in (
                       select id from apalis.jobs where status = 'Done' limit 1000)";
        sqlx::query(age).execute(&db).await.unwrap();
        let started = Instant::now();
        let pruned = queue::prune(bench.db(), keep, 1).await.unwrap();
        waits.push(started.elapsed());
        assert_eq!(pruned.jobs, 1000);
    }
    report("prune of 1,000 jobs", waits);
}

async fn timed(what: &str, work: impl AsyncFn()) {
    let mut waits = Vec::new();
    for _ in 0..TIMES {
        let started = Instant::now();
        work().await;
        waits.push(started.elapsed());
    }
    report(what, waits);
}
