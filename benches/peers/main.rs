//! Benchmark beside other queues: the same work, ten thousand new relays, by `tender work`, by a worker of
//! apalis-postgres without Tender's statements around it, and by graphile-worker where Node is present. All read the row,
//! sign, POST to a server that answers at once, and store the row and its activity; the others fence nothing and batch
//! nothing but their fetches.
//!
//! `cargo bench --bench peers` runs three rounds in alternation at 16, 48 and 100 jobs at the same time; `… -- 16` runs
//! one of them, `… -- two` two processes of Tender at the default alone, and `… -- held` both beside a snapshot that stays
//! open (25 minutes). With `STATEMENTS=1` each run ends with its
//! most expensive statements. `docs/PERFORMANCE.md` has the results.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    clippy::cast_possible_wrap,
    reason = "a benchmark prints, and may fail"
)]

mod bare;
mod graphile;
mod held;
mod stub;
#[path = "../support/mod.rs"]
mod support;

use std::time::Duration;

use stub::Stub;
use support::{Bench, statements, wanted};

const JOBS: i64 = 10_000;
const ROUNDS: usize = 3;

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.get(1).is_some_and(|first| first == "bare") {
        return bare::worker(&arguments[2..]);
    }
    let _already = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for part in wanted(&[
            "16",
            "48",
            "100",
            "one process",
            "two processes",
            "held: tender",
            "held: graphile",
        ]) {
            match part {
                "one process" => alone(1).await,
                "two processes" => alone(2).await,
                "held: tender" => held::tender().await,
                "held: graphile" => held::graphile().await,
                at_a_time => compare(at_a_time).await,
            }
        }
    });
}

async fn compare(at_a_time: &str) {
    let graphile = graphile::install();
    let mut ratios = Vec::new();
    for round in 1..=ROUNDS {
        let tender = tender(Bench::new().await, at_a_time, 1).await;
        let bare = bare::carry(Bench::new().await, at_a_time).await;
        let ratio = tender / bare;
        print!(
            "{at_a_time} at a time, round {round}: Tender {tender:.0}/s, apalis {bare:.0}/s, ratio {ratio:.2}"
        );
        if let Some(folder) = &graphile {
            let graphile = graphile::carry(Bench::new().await, folder, at_a_time).await;
            print!("; graphile-worker {graphile:.0}/s, ratio {:.2}", tender / graphile);
        }
        println!();
        ratios.push(ratio);
    }
    ratios.sort_by(f64::total_cmp);
    println!("{at_a_time} at a time: median ratio to apalis {:.2}", ratios[ROUNDS / 2]);
}

/// Tender alone, at the default.
async fn alone(processes: i64) {
    for round in 1..=ROUNDS {
        let rate = tender(Bench::new().await, "16", processes).await;
        println!("{processes} of Tender, 16 at a time each, round {round}: {rate:.0}/s");
    }
}

/// Returns the jobs per second from the first call to the last.
async fn drained(bench: &Bench, zooid: &Stub) -> f64 {
    // The stub counts in this process. To count rows all the time would take more of the database's time than
    // the work itself.
    let mut look = tokio::time::interval(Duration::from_millis(10));
    while zooid.requests() < usize::try_from(JOBS).unwrap() {
        look.tick().await;
    }
    bench.until("select count(*) from relay where synced", JOBS).await;
    let took = zooid.first().elapsed();
    assert_eq!(i64::try_from(zooid.requests()).unwrap(), JOBS);
    JOBS as f64 / took.as_secs_f64()
}

async fn tender(bench: Bench, at_a_time: &str, processes: i64) -> f64 {
    let zooid = Stub::start().await;
    let more = [
        ("RELAY_SYNC_CONCURRENCY", at_a_time),
        ("ZOOID_MAX_IN_FLIGHT", "200"),
        ("ZOOID_API_URL", &zooid.url),
    ];
    let workers: Vec<_> = (0..processes).map(|_| bench.spawn_with("work", &more)).collect();
    bench.until_workers(processes).await;
    bench.insert(JOBS, JOBS).await;
    statements::reset(bench.db()).await;
    sqlx::query(support::ENQUEUE).execute(bench.db()).await.unwrap();
    let rate = drained(&bench, &zooid).await;
    statements::print(bench.db()).await;
    drop(workers);
    bench.database.destroy().await;
    rate
}
