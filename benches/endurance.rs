//! Benchmarks of endurance: sustained load, a long run, a transaction that stays open, and a
//! dashboard with a million relays. The setup is that of `provisioning`.
//!
//! `cargo bench --bench endurance -- load` runs one part. `soak` and `held` take over ten minutes
//! each.
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
use sqlx::{Connection, PgConnection};
use support::{Bench, by, report, run, session};
use tender::fleet::Fleet;
use tender_jobs::provision::relay::{self, Change, Order, Relay, Search, Status, SyncState};
use tokio::task::JoinSet;

const URL: &str = "http://127.0.0.1:4919";
/// The duration of `soak` and of `held`.
const MINUTES: u32 = 10;

fn main() {
    run(&["load", "dashboard", "held", "soak"], async |bench, name| match name {
        "load" => load(bench).await,
        "dashboard" => dashboard(bench).await,
        "held" => held(bench).await,
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

/// Changes relays at a steady rate, and calls `tell` after each minute.
async fn mutate(
    bench: &Bench,
    relays: &[Relay],
    per_second: u32,
    minutes: u32,
    tell: &mut impl AsyncFnMut(u32),
) {
    let gap = Duration::from_secs(1) / per_second;
    let started = Instant::now();
    let mut number = 0;
    for minute in 1..=minutes {
        let until = started + Duration::from_mins(1) * minute;
        while Instant::now() < until {
            tokio::time::sleep_until((started + gap * number).into()).await;
            let relay = &relays[number as usize % relays.len()];
            let change = Change { info_name: Some(format!("name {number}")), ..Change::default() };
            relay::update(bench.db(), &relay.id, &change, &by()).await.unwrap();
            number += 1;
        }
        tell(minute).await;
    }
}

/// Formats p50 and p99 of the last minute's syncs, from change to stored outcome, as the ledger
/// counted them.
async fn last_minute(bench: &Bench) -> String {
    let minutes = tender_jobs::console::stats::last(bench.db(), 2).await.unwrap();
    let at = |share| {
        tender_jobs::console::stats::percentile(&minutes, share).unwrap_or_default().as_millis()
    };
    format!("p50 ≤ {} ms, p99 ≤ {} ms", at(0.5), at(0.99))
}

async fn dead_tuples(bench: &Bench) -> String {
    let rows: Vec<(String, i64, i64)> = sqlx::query_as(
        "select relname::text, n_live_tup, n_dead_tup from pg_stat_user_tables
         where relname in ('jobs', 'relay', 'zooid_instance', 'sync_minute') order by relname",
    )
    .fetch_all(bench.db())
    .await
    .unwrap();
    rows.iter()
        .map(|(name, live, dead)| format!("{name} {live} live {dead} dead"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// Requests a sync of all `relays` at once and prints the time until they are synced.
async fn burst(bench: &Bench, relays: &[Relay], what: &str) {
    let ids: Vec<_> = relays.iter().map(|relay| relay.id.clone()).collect();
    relay::request_all(&mut bench.db().acquire().await.unwrap(), &ids, &by()).await.unwrap();
    let calls = bench.zooid.calls().len();
    let count = i64::try_from(relays.len()).unwrap();
    bench.until("select count(*) from relay where synced", count).await;
    let took = bench.zooid.calls()[calls].at.elapsed();
    let rate = relays.len() as f64 / took.as_secs_f64();
    println!("  {what}: {count} syncs in {:.2} s, {rate:.0}/s", took.as_secs_f64());
}

/// Holds a transaction with a snapshot open during 100 changes per second. Vacuum cannot remove
/// rows that die in the meantime.
async fn held(bench: &Bench) {
    let service = bench.spawn("work");
    bench.until_workers(1).await;
    let relays = bench.in_step(5000).await;
    println!("a transaction held open for {MINUTES} minutes, 100 changes/s");
    burst(bench, &relays, "before").await;
    let options = (*bench.db().connect_options()).clone();
    let mut holder = PgConnection::connect_with(&options).await.unwrap();
    sqlx::raw_sql("begin isolation level repeatable read; select count(*) from relay where synced")
        .execute(&mut holder)
        .await
        .unwrap();
    mutate(bench, &relays, 100, MINUTES, &mut async |minute| {
        println!("  minute {minute}: {}; {}", last_minute(bench).await, dead_tuples(bench).await);
    })
    .await;
    burst(bench, &relays, "at the end, still held").await;
    sqlx::raw_sql("rollback").execute(&mut holder).await.unwrap();
    sqlx::raw_sql("vacuum analyze").execute(&bench.bulk()).await.unwrap();
    burst(bench, &relays, "after its end and a vacuum").await;
    drop(service);
}

/// Runs API and workers in one process for ten minutes at 100 changes per second.
async fn soak(bench: &Bench) {
    let service = bench.spawn("serve");
    bench.until_workers(1).await;
    let relays = bench.in_step(2000).await;
    println!("soak of {MINUTES} minutes, 100 changes/s, finished jobs kept for 3 min");
    mutate(bench, &relays, 100, MINUTES, &mut async |minute| {
        let rss = service.rss_mb();
        println!(
            "  minute {minute}: {rss:.1} MB RSS; {}; {}",
            last_minute(bench).await,
            dead_tuples(bench).await
        );
    })
    .await;
    drop(service);
}
