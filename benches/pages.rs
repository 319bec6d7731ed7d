//! Benchmark of the dashboard: size and time to the first byte of every page, over a full ledger, through
//! HTTP, from a separate process. Each part has ten times the rows of the one before.
//!
//! `cargo bench --bench pages` runs all parts; `… -- 100k` runs one. `docs/PERFORMANCE.md` has the results.
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

use std::time::Instant;

use support::{Bench, dashboard::Dashboard, run};

/// Requests of each page that are measured, after five that warm up.
const REQUESTS: usize = 200;

/// The pages; `{relay}`, `{job}` and `{event}` are ids of rows in the middle.
const PAGES: &[&str] = &[
    "",
    "/charts?range=1h",
    "/charts?range=7d",
    "/relays",
    "/relays?order=host&q=r77",
    "/relays?sync=pending&order=waiting",
    "/relays/{relay}",
    "/upstreams",
    "/events",
    "/queues",
    "/jobs",
    "/jobs?state=killed",
    "/jobs?state=open",
    "/jobs?error=422",
    "/jobs?error=nothing+like+this",
    "/jobs?error=422&age=over-86400",
    "/jobs?queue=sync-relay&state=done",
    "/jobs/{job}",
    "/schedule",
    "/processes",
    "/actions",
    "/search?q=r77777",
    "/search?q={event}",
];

fn main() {
    run(&["10k", "100k", "1m"], async |bench, name| {
        let relays = match name {
            "10k" => 10_000,
            "100k" => 100_000,
            _ => 1_000_000,
        };
        fill(bench, relays).await;
        measure(bench).await;
    });
}

/// Inserts relays, a thousand of them pending; five finished jobs and ten events for each relay.
async fn fill(bench: &Bench, relays: i64) {
    let started = Instant::now();
    bench.insert(relays, 1000).await;
    println!("{relays} relays, {} finished jobs, {} events", relays * 5, relays * 10);
    let (jobs, events) = (include_str!("pages/jobs.sql"), include_str!("pages/events.sql"));
    for (statement, rows) in [(jobs, relays * 5), (events, relays * 10)] {
        for first in (0..rows).step_by(50_000) {
            sqlx::query(statement)
                .bind(first)
                .bind((first + 50_000).min(rows) - 1)
                .execute(&bench.bulk())
                .await
                .unwrap();
        }
    }
    sqlx::raw_sql("vacuum analyze").execute(&bench.bulk()).await.unwrap();
    println!("  filled in {:.0} s", started.elapsed().as_secs_f64());
}

async fn id(bench: &Bench, query: &'static str) -> String {
    sqlx::query_scalar(query).fetch_one(bench.db()).await.unwrap()
}

async fn measure(bench: &Bench) {
    let dashboard = Dashboard::start(bench).await;
    let ids = [
        ("{relay}", id(bench, "select id::text from relay offset 5000 limit 1").await),
        ("{job}", id(bench, "select id from apalis.jobs offset 5000 limit 1").await),
        ("{event}", id(bench, "select encode(id, 'hex') from event offset 5000 limit 1").await),
    ];
    let mut all = Vec::new();
    for page in PAGES {
        let path = ids.iter().fold((*page).to_owned(), |path, (name, id)| path.replace(name, id));
        let (bytes, mut waits) = dashboard.load(&path, REQUESTS).await;
        waits.sort();
        let at = |percent: usize| waits[waits.len() * percent / 100].as_secs_f64() * 1000.0;
        println!(
            "  {page:36} {:6.1} kB  p50 {:6.1} ms  p99 {:6.1} ms",
            bytes as f64 / 1e3,
            at(50),
            at(99)
        );
        all.extend(waits);
    }
    all.sort();
    println!("  all pages: p99 {:.1} ms", all[all.len() * 99 / 100].as_secs_f64() * 1000.0);
}
