//! Benchmark of lanes that have nothing to do: 1,000 upstreams in step in one process, on the default schedule. Counts
//! statements, frames, bytes and processor time over 15 minutes, so that every schedule but the hourly ones is in it.
//!
//! `cargo bench --bench idle_lanes -- down` downloads only, as an upstream does by default; `-- both` uploads too.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    reason = "a benchmark"
)]

mod support;

use std::time::Duration;

use serde_json::json;
use support::{
    Bench, Process,
    relays::{Many, Nip77, Traffic},
    statements,
};
use tender_jobs::mirror::upstream::{self, Change};

const UPSTREAMS: usize = 1000;
/// The shortest time that holds each of the runs of realtime (5 min), recovery (10) and uploads (15).
const MEASURED: Duration = Duration::from_mins(15);
/// Statements that are printed.
const PRINTED: usize = 30;

fn main() {
    statements::want();
    support::run(&["down", "both"], async |bench, direction| {
        let many = Many::start(UPSTREAMS, Nip77::InStep).await;
        add(bench, &many, direction).await;
        let worker = bench.spawn_with("work", &[("MIRROR_PROFILE", "production")]);
        in_step(bench, direction).await;
        measure(bench, &worker, &many.traffic, direction).await;
    });
}

async fn add(bench: &Bench, many: &Many, direction: &str) {
    for number in 0..UPSTREAMS {
        let change = Change {
            url: Some(many.url(number)),
            direction: Some(direction.to_owned()),
            negentropy: Some(true),
            config: Some(json!({ "backfill_since_hours": 1 })),
            ..Change::default()
        };
        upstream::create(bench.db(), &change).await.unwrap();
    }
}

/// Waits until the history of each upstream is complete and every other lane has run.
async fn in_step(bench: &Bench, direction: &str) {
    let all = i64::try_from(UPSTREAMS).unwrap();
    let completed = "select count(*) from lane where lane = 'backfill' and status = 'completed'";
    bench.until(completed, all).await;
    println!("every history is complete");
    bench
        .until("select count(*) from lane where cursor_at is not null and status = 'idle'", all)
        .await;
    if direction == "both" {
        let uploaded =
            "select count(*) from lane where lane = 'upload' and last_synced_at is not null
                        and status = 'idle'";
        bench.until(uploaded, all).await;
    }
}

async fn measure(bench: &Bench, worker: &Process, traffic: &Traffic, direction: &str) {
    statements::reset(bench.db()).await;
    let (before, cpu) = (traffic.counts(), worker.cpu_seconds());
    tokio::time::sleep(MEASURED).await;
    let sent = statements::sent(bench.db()).await;
    let (seconds, cpu) = (MEASURED.as_secs_f64(), worker.cpu_seconds() - cpu);
    let calls: i64 = sent.iter().map(|(calls, _, _)| calls).sum();
    let busy: f64 = sent.iter().map(|(_, millis, _)| millis).sum();
    println!(
        "{direction}: {UPSTREAMS} upstreams in step: {:.1} statements/s, {:.1} % of a core in the process and {:.1} % in \
         PostgreSQL's statements, {:.0} MB",
        calls as f64 / seconds,
        100.0 * cpu / seconds,
        busy / 10.0 / seconds,
        worker.rss_mb()
    );
    for ((name, after), before) in
        ["connections", "frames sent", "frames received", "bytes sent", "bytes received"]
            .into_iter()
            .zip(traffic.counts())
            .zip(before)
    {
        println!("  {name}: {:.2} per upstream and poll", per_poll(after - before));
    }
    for (calls, millis, query) in sent.into_iter().take(PRINTED) {
        println!(
            "  {:8.2}/s {:8.3} ms each | {query}",
            calls as f64 / seconds,
            millis / calls as f64
        );
    }
}

/// The share of one upstream in one of the polls, which come every five minutes.
fn per_poll(count: u64) -> f64 {
    let polls = MEASURED.as_secs() / 300;
    count as f64 / polls as f64 / UPSTREAMS as f64
}
