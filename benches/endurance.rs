//! Benchmarks of endurance: sustained load, a long run, and a dashboard with a million relays. The setup is that of
//! `provisioning`.
//!
//! `cargo bench --bench endurance -- load` runs one part. `soak` takes over ten minutes.
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

use std::time::{Duration, Instant};

use nostr::key::Keys;
use support::{Bench, report, run, session, statements::dead_tuples, steady::Steady};
use tender::fleet::Fleet;
use tender_jobs::provision::relay::{self, Order, Search, Status, SyncState};
use tokio::task::JoinSet;

const URL: &str = "http://127.0.0.1:4919";
/// The duration of `soak`.
const MINUTES: u32 = 10;

fn main() {
    run(&["load", "dashboard", "soak"], async |bench, name| match name {
        "load" => load(bench).await,
        "dashboard" => dashboard(bench).await,
        _ => soak(bench).await,
    });
}

/// Creates 200 relays per second over HTTP for a minute. Each request is sent at its scheduled
/// time, even if earlier requests are unanswered. A latency counts from the scheduled time.
async fn load(bench: &Bench) {
    let service = bench.spawn("serve");
    bench.until_workers(1).await;
    let (http, keys) = (reqwest::Client::new(), Keys::generate());
    let session = session(&keys, URL);
    let (count, gap) = (12_000_u32, Duration::from_millis(5));
    let started = Instant::now();
    let mut requests = JoinSet::new();
    for number in 0..count {
        let due = started + gap * number;
        tokio::time::sleep_until(due.into()).await;
        let request = http.post(format!("{URL}/relays")).header("authorization", &session);
        let request = request.body(format!(r#"{{"subdomain": "relay-{number}"}}"#));
        requests.spawn(async move {
            let answer = request.send().await;
            (due.elapsed(), answer.is_ok_and(|answer| answer.status() == 201))
        });
    }
    let answers = requests.join_all().await;
    let ended = Instant::now();
    let failed = answers.iter().filter(|(_, is_created)| !is_created).count();
    report("200 creates/s for 60 s", answers.into_iter().map(|(wait, _)| wait).collect());
    bench.until("select count(*) from relay where synced", count.into()).await;
    println!(
        "  {failed} failed; drained {:.2} s after the last answer",
        ended.elapsed().as_secs_f64()
    );
    drop(service);
}

/// Measures the queries of the dashboard on a million relays, a thousand of them pending.
async fn dashboard(bench: &Bench) {
    bench.insert(1_000_000, 1000).await;
    for table in ["relay", "relay_count", "apalis.jobs"] {
        let statement = sqlx::AssertSqlSafe(format!("vacuum analyze {table}"));
        sqlx::query(statement).execute(&bench.bulk()).await.unwrap();
    }
    let mut waits = Vec::new();
    for _ in 0..20 {
        let started = Instant::now();
        let fleet = Fleet::read(bench.db()).await.unwrap();
        waits.push(started.elapsed());
        assert_eq!(fleet.summary.total, 1_000_000);
    }
    report("fleet page, 1,000,000 relays", waits);
    let any = Search::default;
    for (what, search) in [
        ("newest", any()),
        ("by host", Search { order: Order::Host, ..any() }),
        ("longest waiting", Search { order: Order::Waiting, ..any() }),
        ("pending", Search { sync: Some(SyncState::Pending), ..any() }),
        ("synced, by host", Search { sync: Some(SyncState::Synced), order: Order::Host, ..any() }),
        ("gave up (none)", Search { sync: Some(SyncState::GaveUp), ..any() }),
        ("delinquent (none)", Search { status: Some(Status::Delinquent), ..any() }),
        ("start of a host", Search { text: Some("r77777".to_owned()), ..any() }),
        ("no such host", Search { text: Some("zzz".to_owned()), ..any() }),
    ] {
        let mut waits = Vec::new();
        let mut search = search;
        for _ in 0..20 {
            let started = Instant::now();
            let rows = relay::search(bench.db(), &search, 51).await.unwrap();
            waits.push(started.elapsed());
            let Some(last) = rows.last() else { continue };
            search.after = Some(last.id.parse().unwrap()); // the next page
        }
        report(&format!("  20 pages of relays: {what}"), waits);
    }
}

/// Runs API and workers in one process for ten minutes at 100 changes per second.
async fn soak(bench: &Bench) {
    let service = bench.spawn("serve");
    bench.until_workers(1).await;
    let relays = bench.in_step(2000).await;
    println!("soak of {MINUTES} minutes, 100 changes/s, finished jobs kept for 3 min");
    let mut steady = Steady::new(&relays, 100);
    for minute in 1..=MINUTES {
        let waits = steady.minutes(bench, 1).await;
        let (rss, dead) = (service.rss_mb(), dead_tuples(bench.db()).await);
        report(&format!("  minute {minute}, {rss:.1} MB RSS, {dead}"), waits);
    }
    drop(service);
}
