//! Benchmark of the event store's growth: the same work over 100,000, 1,000,000 and 10,000,000 events with the mix
//! of a real relay. Nothing may take longer in a larger store, except for what returns more.
//!
//! `cargo bench --bench growth` runs all parts; `… -- 1m` runs one. `docs/PERFORMANCE.md` has the results.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a benchmark prints, and may fail"
)]

mod fill;
mod reads;
#[path = "../support/mod.rs"]
mod support;
mod writes;

use std::{
    future::Future,
    time::{Duration, Instant},
};

use support::{report, run};

/// The longest that a measurement is repeated.
const WITHIN: Duration = Duration::from_secs(30);

fn main() {
    run(&["100k", "1m", "10m"], async |bench, name| {
        let events = match name {
            "100k" => 100_000,
            "1m" => 1_000_000,
            _ => 10_000_000,
        };
        let upstream = fill::fill(bench, events).await;
        reads::measure(bench, events).await;
        writes::measure(bench, upstream).await;
    });
}

/// Repeats `work`, and prints what it took. The first three times warm up.
async fn times<F: Future>(what: &str, most: usize, mut work: impl FnMut(usize) -> F) {
    let (begun, mut waits) = (Instant::now(), Vec::new());
    for number in 0..most + 3 {
        let started = Instant::now();
        work(number).await;
        if number >= 3 {
            waits.push(started.elapsed());
        }
        if begun.elapsed() > WITHIN && !waits.is_empty() {
            break;
        }
    }
    report(&format!("  {what}"), waits);
}
