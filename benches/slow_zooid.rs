//! A zooid that is slow by nature, and the background re-assertion.
//!
//! `cargo bench --bench slow_zooid` runs all parts; `… -- changed` runs only those whose name contains
//! `changed`. `docs/PERFORMANCE.md` has the results of a run.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and may fail"
)]

mod support;

use std::time::{Duration, Instant};

use support::{Bench, report, run};
use tender_jobs::provision;

/// What a write costs a real zooid for each relay that it has.
const COST: Duration = Duration::from_micros(160);
const RELAYS: i64 = 1158;

fn main() {
    run(&["changed", "reassert"], async |bench, name| match name {
        "changed" => changed(bench).await,
        _ => reassert(bench).await,
    });
}

/// Syncs a fleet on a zooid that answers at once, slows zooid down to its real speed, and then changes
/// every relay.
async fn changed(bench: &Bench) {
    let worker = bench.spawn("work");
    bench.until_workers(1).await;
    bench.insert(RELAYS, RELAYS).await;
    sqlx::query(support::ENQUEUE).execute(bench.db()).await.unwrap();
    bench.until("select count(*) from relay where synced", RELAYS).await;
    bench.zooid.tune(|rules| rules.cost_per_relay = COST);
    let before = bench.zooid.calls().len();
    let by = support::by();
    provision::start_resync(bench.db(), provision::MAX_RATE, &by).await.unwrap();
    bench.until("select count(*) from relay where generation = 2", RELAYS).await;
    let started = Instant::now();
    bench.until("select count(*) from relay where synced and generation = 2", RELAYS).await;
    let took = started.elapsed().as_secs_f64();
    let calls = bench.zooid.calls().split_off(before);
    let unanswered = calls.iter().filter(|call| call.status.is_none()).count();
    let possible = RELAYS as f64 * COST.as_secs_f64() * RELAYS as f64;
    println!(
        "{RELAYS} changed relays on a zooid of {RELAYS}: {took:.0} s, of which zooid needs \
         {possible:.0} s; {} calls, {unanswered} not answered in time ({:.1} %)",
        calls.len(),
        100.0 * unanswered as f64 / calls.len() as f64
    );
    let limit: Option<f64> = sqlx::query_scalar("select calls_allowed from zooid_instance")
        .fetch_one(bench.db())
        .await
        .unwrap();
    println!("calls in flight allowed at the end: {:.1}", limit.unwrap_or_default());
    drop(worker);
}

/// Measures a step of the re-assertion of a million relays, as it runs once a minute.
async fn reassert(bench: &Bench) {
    bench.insert(1_000_000, 0).await;
    sqlx::query("vacuum analyze relay").execute(bench.db()).await.unwrap();
    let week = Duration::from_hours(7 * 24);
    provision::reassert(bench.db(), week).await.unwrap();
    let mut waits = Vec::new();
    let mut relays = 0;
    for _ in 0..20 {
        sqlx::query(
            "update reassertion set round_started_at = round_started_at - interval '1 minute'",
        )
        .execute(bench.db())
        .await
        .unwrap();
        let started = Instant::now();
        relays += provision::reassert(bench.db(), week).await.unwrap().relays;
        waits.push(started.elapsed());
    }
    println!("re-assertion of 1,000,000 relays in 7 days: {} relays per minute", relays / 20);
    report("a step of the re-assertion, once a minute", waits);
}
