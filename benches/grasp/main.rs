//! Benchmarks of GRASP: histories of followed relays, new events, plans, restarts, many relays, and
//! growth. The relays are in this process; the workers are a process of their own. The parts `beside 100,000` give the
//! service so many other repositories before: `cargo bench --bench grasp -- beside` runs them.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a benchmark"
)]

mod ledger;
mod relays;
#[path = "../support/mod.rs"]
mod support;
mod talk;

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use ledger::{announce_and_plan, fill, fill_services, rows, serve, worker};
use relays::Relay;
use serde_json::json;
use support::{
    Bench, Process,
    relays::{Many, Nip77},
    statements,
};
use talk::Talk;

fn main() {
    let parts = [
        "history",
        "live",
        "plan",
        "restart",
        "many",
        "growth",
        "beside 100,000: history",
        "beside 100,000: live",
        "beside 100,000: restart",
    ];
    support::run(&parts, async |bench, name| {
        let beside = name.strip_prefix("beside 100,000: ");
        let others = if beside.is_some() { 100_000 } else { 0 };
        print!("{} ", if beside.is_some() { "beside 100,000 repositories:" } else { "" });
        match beside.unwrap_or(name) {
            "history" => history(bench, others).await,
            "live" => live(bench, others).await,
            "plan" => plan(bench).await,
            "restart" => restart(bench, others).await,
            "many" => many(bench).await,
            _ => growth(bench).await,
        }
    });
}

/// The followed relays that are in step, without those of [`fill_services`].
const IN_STEP: &str = "select count(*) from grasp_relay
    where status = 'in_step' and url not like '%.bench.example'";

/// 100,000 events over ten relays, until they are stored and everything is confirmed.
async fn history(bench: &Bench, others: i64) {
    const RELAYS: usize = 10;
    const REPOSITORIES: usize = 50;
    const EACH: usize = 10_000;
    let own = Relay::start().await;
    let mut relays = Vec::new();
    for _ in 0..RELAYS {
        relays.push(Relay::start().await);
    }
    let talk = Talk::new(&own.url);
    let mut total = 0;
    for (number, relay) in relays.iter().enumerate() {
        let (announcements, events) = talk.repositories(number, REPOSITORIES, EACH, &relay.url);
        own.fill(&announcements).await;
        relay.fill(&events).await;
        total += events.len() + announcements.len();
    }
    serve(bench, &own.url, &[]).await;
    fill_services(bench, others, 3).await;
    statements::reset(bench.db()).await;
    let worker = worker(bench);
    bench.until("select count(*) from grasp_relay where connects > 0", 1).await;
    let begun = Instant::now();
    let most = i64::try_from(total).unwrap();
    rows(bench, "select count(*) from admission", most).await;
    rows(bench, "select 1 - least(1, count(*)) from grasp_coverage where state <> 'confirmed'", 1)
        .await;
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "history: {total} events of {RELAYS} relays stored and confirmed in {seconds:.1} s: {:.0} events/s",
        total as f64 / seconds
    );
    println!("  process: {:.0} MB", worker.rss_mb());
    statements::print(bench.db()).await;
}

/// Events published on a followed relay, until the service's relay has them.
async fn live(bench: &Bench, others: i64) {
    const EVENTS: usize = 500;
    const PAUSE: Duration = Duration::from_millis(20);
    let (own, a) = (Relay::start().await, Relay::start().await);
    let talk = Talk::new(&own.url);
    let (announcements, _) = talk.repositories(0, 1, 100, &a.url);
    own.fill(&announcements).await;
    serve(bench, &own.url, &[]).await;
    fill_services(bench, others, 3).await;
    let _worker = worker(bench);
    bench.until(IN_STEP, 1).await;
    let (mut socket, _) = tokio_tungstenite::connect_async(&own.url).await.unwrap();
    let request = json!(["REQ", "all", { "kinds": [1621], "limit": 0 }]).to_string();
    futures_util::SinkExt::send(&mut socket, request.into()).await.unwrap();
    let events = talk.issues(0, EVENTS);
    let mut sent = std::collections::HashMap::new();
    let mut took = Vec::new();
    let mut publish = tokio::time::interval(PAUSE);
    let mut waiting = events.into_iter();
    while took.len() < EVENTS {
        tokio::select! {
            _ = publish.tick(), if waiting.len() > 0 => {
                let event = waiting.next().unwrap();
                sent.insert(event.id.to_hex(), Instant::now());
                a.publish(&event).await;
            }
            Some(Ok(message)) = socket.next() => {
                let Ok(text) = message.to_text() else { continue };
                let Ok(value) = serde_json::from_str::<serde_json::Value>(text) else { continue };
                let id = value[2]["id"].as_str().unwrap_or_default();
                took.extend(sent.remove(id).map(|at: Instant| at.elapsed()));
            }
        }
    }
    took.sort_unstable();
    println!(
        "live: {EVENTS} events at 50/s, from a followed relay to the service's: p50 {:?}, p99 {:?}, max {:?}",
        took[EVENTS / 2],
        took[EVENTS * 99 / 100],
        took[EVENTS - 1]
    );
}

/// The plan after one new announcement, at 10,000 repositories on three relays.
async fn plan(bench: &Bench) {
    for repositories in [100, 10_000] {
        fill(bench, repositories, 3).await;
        let took = announce_and_plan(bench, 20).await;
        println!(
            "plan: {repositories} repositories × 3 relays: one new announcement stored p50 {:?}, plan p50 {:?}",
            took.0, took.1
        );
    }
}

/// A process that starts with 200 relays whose items are confirmed.
async fn restart(bench: &Bench, others: i64) {
    const RELAYS: usize = 200;
    let own = Relay::start().await;
    let many = Many::start(RELAYS, Nip77::Refused).await;
    let talk = Talk::new(&own.url);
    own.fill(&talk.announcements(RELAYS, |number| vec![many.url(number)])).await;
    serve(bench, &own.url, &[]).await;
    fill_services(bench, others, 3).await;
    let first = worker(bench);
    let confirmed = "select 1 - least(1, count(*)) from grasp_coverage where state <> 'confirmed'";
    let most = i64::try_from(RELAYS).unwrap();
    rows(bench, IN_STEP, most).await;
    rows(bench, confirmed, 1).await;
    drop(first);
    let batches = "select count(*) from grasp_batch where purpose = 'missing'";
    let before: i64 = sqlx::query_scalar(batches).fetch_one(bench.db()).await.unwrap();
    let begun = Instant::now();
    let second = worker(bench);
    rows(bench, IN_STEP, most).await;
    let took = begun.elapsed();
    let after: i64 = sqlx::query_scalar(batches).fetch_one(bench.db()).await.unwrap();
    println!(
        "restart: {RELAYS} confirmed relays, all live and verified after {:.1} s; {} batches of history; {:.0} MB",
        took.as_secs_f64(),
        after - before,
        second.rss_mb()
    );
}

/// 500 followed relays in one process, idle; and the same process without a service, for what the queues
/// cost by themselves.
async fn many(bench: &Bench) {
    const RELAYS: usize = 500;
    let own = Relay::start().await;
    let many = Many::start(RELAYS, Nip77::Refused).await;
    let talk = Talk::new(&own.url);
    own.fill(&talk.announcements(RELAYS, |number| vec![many.url(number)])).await;
    let worker = worker(bench);
    idle(bench, &worker, "no service").await;
    serve(bench, &own.url, &[]).await;
    rows(bench, IN_STEP, i64::try_from(RELAYS).unwrap()).await;
    idle(bench, &worker, "500 followed relays in step").await;
}

/// Prints what an idle process costs.
async fn idle(bench: &Bench, worker: &Process, what: &str) {
    const SETTLE: Duration = Duration::from_secs(20);
    const IDLE: Duration = Duration::from_mins(1);
    tokio::time::sleep(SETTLE).await;
    let (before, cpu) = (bench.transactions().await, worker.cpu_seconds());
    tokio::time::sleep(IDLE).await;
    let transactions = bench.transactions().await - before;
    println!(
        "many: {what}, idle: {:.0} MB, {:.1} transactions/s, {:.1} % of a core",
        worker.rss_mb(),
        transactions as f64 / IDLE.as_secs_f64(),
        (worker.cpu_seconds() - cpu) * 100.0 / IDLE.as_secs_f64()
    );
}

/// The same announcement and plan from 100 to 100,000 repositories, and the size of the tables.
async fn growth(bench: &Bench) {
    for repositories in [100, 1_000, 10_000, 100_000] {
        fill(bench, repositories, 3).await;
        let (stored, planned) = announce_and_plan(bench, 20).await;
        let megabytes: i64 = sqlx::query_scalar(
            "select sum(pg_total_relation_size(oid))::bigint / 1048576 from pg_class
             where relname like 'grasp_%' and relkind = 'r'",
        )
        .fetch_one(bench.db())
        .await
        .unwrap();
        println!(
            "growth: {repositories:>7} repositories × 3 relays: announcement stored p50 {stored:?}, plan p50 {planned:?}, tables {megabytes} MB"
        );
    }
}
