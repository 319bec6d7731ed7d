//! Benchmark of all three wings in one process for ten minutes: 100 relays change per second while histories of other relays
//! are downloaded, and a GRASP service follows its repositories. The same changes alone come first.
//!
//! `cargo bench --bench wings` takes about a quarter of an hour. `docs/PERFORMANCE.md` has the results.
#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a benchmark; it uses parts of what others share"
)]

#[path = "../mirror/archive.rs"]
mod archive;
#[path = "../grasp/ledger.rs"]
mod ledger;
#[path = "../mirror/mix.rs"]
mod mix;
#[path = "../grasp/relays.rs"]
mod relays;
#[path = "../support/mod.rs"]
mod support;
#[path = "../grasp/talk.rs"]
mod talk;

use std::{
    sync::atomic::{AtomicI64, Ordering},
    time::Duration,
};

use archive::Archive;
use serde_json::json;
use support::{Bench, report, steady::Steady};
use talk::Talk;
use tender_jobs::{
    mirror::{
        lane::LaneKind,
        upstream::{self, Change, Upstream},
        work,
    },
    queue,
};
use tender_workers::mirror::orchestrate;

const RELAYS: usize = 2000;
const PER_SECOND: u32 = 100;
const MINUTES: u32 = 10;
/// The histories that are downloaded, one after the other, until the time is over: 2,800,000 events.
const HISTORIES: usize = 14;
const EVENTS: usize = 200_000;
const DAYS: i64 = 30;

fn main() {
    support::run(&["wings"], async |bench, _| wings(bench).await);
}

async fn wings(bench: &Bench) {
    let histories = histories(bench).await;
    let worker = bench.spawn_with("work", &[("MIRROR_PROFILE", "production")]);
    bench.until_workers(1).await;
    let relays = bench.in_step(RELAYS).await;
    let mut steady = Steady::new(&relays, PER_SECOND);
    report("provisioning alone, 2 minutes", steady.minutes(bench, 2).await);
    let _served = repositories(bench).await;
    let loading = async {
        for archive in &histories {
            download(bench, archive).await;
        }
    };
    let changing = async {
        for minute in 1..=MINUTES {
            let waits = steady.minutes(bench, 1).await;
            report(&format!("minute {minute}, {}", progress(bench, worker.rss_mb()).await), waits);
        }
    };
    // What is left when the time is over is not downloaded.
    tokio::select! {
        () = async { tokio::join!(changing, loading); } => {}
        () = tokio::time::sleep(Duration::from_mins(u64::from(MINUTES) + 1)) => {}
    }
}

async fn progress(bench: &Bench, rss: f64) -> String {
    static STORED: AtomicI64 = AtomicI64::new(0);
    let stored = "select coalesce(sum(stored), 0)::bigint from lane";
    let stored: i64 = sqlx::query_scalar(stored).fetch_one(bench.db()).await.unwrap();
    let before = STORED.swap(stored, Ordering::Relaxed);
    format!("{:.0} events/s stored, {rss:.1} MB RSS", (stored - before) as f64 / 60.0)
}

/// Signs the histories, each of other authors.
async fn histories(bench: &Bench) -> Vec<Archive> {
    let now = queue::now(bench.db()).await.unwrap().timestamp() - 60;
    let mixes = (0..HISTORIES).map(|_| mix::mix(EVENTS, now, DAYS * 86_400));
    mixes.map(|mix| Archive::of(&mix.events)).collect()
}

/// Downloads a history, and waits for its end.
async fn download(bench: &Bench, archive: &Archive) {
    let change = Change {
        url: Some(archive.serve().await),
        negentropy: Some(true),
        direction: Some("down".to_owned()),
        live: Some(false),
        config: Some(json!({ "backfill_since_hours": 24 * (DAYS + 1) })),
        ..Change::default()
    };
    let Upstream { id, .. } = upstream::create(bench.db(), &change).await.unwrap();
    let dispatched =
        orchestrate::dispatch(bench.db(), LaneKind::Backfill, Some(id), true).await.unwrap();
    let lane = dispatched[0].lane.unwrap_or_else(|| panic!("{dispatched:?}"));
    let mut look = tokio::time::interval(Duration::from_millis(200));
    while work::lane_has_job(bench.db(), lane).await.unwrap() {
        look.tick().await;
    }
}

/// A service whose fifty repositories name a relay with 10,000 events.
async fn repositories(bench: &Bench) -> [relays::Relay; 2] {
    let (own, other) = (relays::Relay::start().await, relays::Relay::start().await);
    let talk = Talk::new(&own.url);
    let (announcements, events) = talk.repositories(0, 50, 10_000, &other.url);
    own.fill(&announcements).await;
    other.fill(&events).await;
    ledger::serve(bench, &own.url, &[]).await;
    [own, other]
}
