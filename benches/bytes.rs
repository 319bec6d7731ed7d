//! Benchmark of the event store's size: bytes per event of each table and index, beside those of the event's
//! JSON. The events have the mix of a real relay and one source each, and arrive in windows, newest first.
//!
//! `cargo bench --bench bytes` runs all parts; `… -- 300k` runs one. `docs/PERFORMANCE.md` has the results.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    reason = "a benchmark prints, and may fail"
)]

mod support;

use std::time::Instant;

use support::{Bench, run};

/// The events of one window.
const WINDOW: i64 = 10_000;

fn main() {
    run(&["300k", "2m"], async |bench, name| {
        let events = if name == "2m" { 2_000_000 } else { 300_000 };
        fill(bench, events).await;
        report(bench).await;
    });
}

async fn fill(bench: &Bench, events: i64) {
    let (db, started) = (bench.bulk(), Instant::now());
    let source: i32 = sqlx::query_scalar(
        "insert into upstream (url, direction) values ('wss://bench.test', 'both') returning number",
    )
    .fetch_one(&db)
    .await
    .unwrap();
    // Versions are told apart at the end.
    sqlx::raw_sql("drop index event_live_version").execute(&db).await.unwrap();
    for window in (0..events / WINDOW).rev() {
        sqlx::query(include_str!("bytes/mix.sql"))
            .bind(window * WINDOW + 1)
            .bind((window + 1) * WINDOW)
            .bind(source)
            .execute(&db)
            .await
            .unwrap();
    }
    for statement in include_str!("bytes/versions.sql").split(";\n") {
        sqlx::raw_sql(statement).execute(&db).await.unwrap();
    }
    println!("{events} events, filled in {:.0} s", started.elapsed().as_secs_f64());
}

async fn report(bench: &Bench) {
    let sizes: Vec<(i32, String, f64)> =
        sqlx::query_as(include_str!("bytes/sizes.sql")).fetch_all(&bench.bulk()).await.unwrap();
    let json = sizes[0].2;
    for (_, name, bytes) in sizes {
        println!("  {name:<30} {bytes:>8.1} {:>6.2}", bytes / json);
    }
}
