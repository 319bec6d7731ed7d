//! Benchmarks of the mirror: downloads of the mix of a real relay with nostr-sdk's own sync beside them, comparisons of
//! large stores that differ little or not at all, and uploads. The relays are in this process and in memory.
//!
//! - `download`: the downloads. `mix`: their events. `archive`: their relay, which holds every version. The other relays
//!   are rust-nostr's.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::disallowed_methods,
    clippy::large_futures,
    reason = "a benchmark"
)]

mod archive;
mod download;
mod mix;
mod rates;
#[path = "../support/mod.rs"]
mod support;

use std::{sync::Arc, time::Instant};

use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind, Tag},
    key::Keys,
    types::Timestamp,
};
use nostr_database::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{
    LocalRelay, RelayBuilder,
    builder::RateLimit,
    prelude::{Event as TheirEvent, JsonUtil},
};
use rates::Rates;
use support::Bench;
use tender_jobs::{
    mirror::{
        event::{self, Batch, Limits},
        lane::{self, LaneKind, LaneState},
        upstream::{self, Change, Upstream},
        work,
    },
    queue,
};
use tender_workers::mirror::orchestrate;

/// The number of days over which the events are spread.
const DAYS: i64 = 30;
/// The rounds in which the ways to download alternate.
const ROUNDS: usize = 3;

fn main() {
    support::run(&["download", "step", "upload"], async |bench, name| match name {
        "download" => download::download(bench).await,
        "step" => in_step(bench).await,
        _ => upload(bench).await,
    });
}

struct Relay {
    _server: LocalRelay,
    database: Arc<MemoryDatabase>,
    url: String,
}

impl Relay {
    async fn count(&self) -> usize {
        self.database.count(nostr_sdk::prelude::Filter::new()).await.unwrap()
    }
}

/// Starts a relay that holds `events`.
async fn relay_with(events: &[Event]) -> Relay {
    let options = MemoryDatabaseOptions { events: true, max_events: None };
    let database = Arc::new(MemoryDatabase::with_opts(options));
    for event in events {
        database.save_event(&theirs(event)).await.unwrap();
    }
    let builder = RelayBuilder::default()
        .addr(std::net::Ipv4Addr::LOCALHOST.into())
        .database(database.clone())
        .rate_limit(RateLimit { max_reqs: 100_000, notes_per_minute: u32::MAX });
    let relay = LocalRelay::new(builder);
    relay.run().await.unwrap();
    let url = relay.url().await.to_string().trim_end_matches('/').to_owned();
    Relay { _server: relay, database, url }
}

fn theirs(event: &Event) -> TheirEvent {
    TheirEvent::from_json(serde_json::to_string(event).unwrap()).unwrap()
}

/// Makes text notes spread evenly over the days before `now`, and signs them on all cores.
fn notes(count: usize, now: i64) -> Vec<Event> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let (part, step) =
        (count.div_ceil(cores), DAYS * 86_400 / i64::try_from(count).unwrap().max(1));
    let spread = move |index: usize| {
        let index = i64::try_from(index).unwrap();
        now - 60
            - if step > 0 {
                index * step
            } else {
                index * DAYS * 86_400 / i64::try_from(count).unwrap()
            }
    };
    std::thread::scope(|scope| {
        let parts: Vec<_> = (0..cores)
            .map(|core| {
                scope.spawn(move || {
                    let keys = Keys::generate();
                    let range = core * part..((core + 1) * part).min(count);
                    range
                        .map(|index| {
                            let at = u64::try_from(spread(index)).unwrap();
                            EventBuilder::new(Kind::TextNote, format!("note {index}, as long as notes usually are, more or less, in the end"))
                                .tag(Tag::custom("t", ["bench"]))
                                .custom_created_at(Timestamp::from(at))
                                .finalize(&keys)
                                .unwrap()
                        })
                        .collect::<Vec<_>>()
                })
            })
            .collect();
        parts.into_iter().flat_map(|part| part.join().unwrap()).collect()
    })
}

async fn upstream(
    bench: &Bench,
    url: &str,
    mut config: serde_json::Value,
    direction: &str,
) -> Upstream {
    config["backfill_since_hours"] = serde_json::json!(24 * (DAYS + 1));
    let change = Change {
        url: Some(url.to_owned()),
        negentropy: Some(true),
        direction: Some(direction.to_owned()),
        config: Some(config),
        ..Change::default()
    };
    upstream::create(bench.db(), &change).await.unwrap()
}

/// Triggers a mode and waits for its end. Returns the lane's state and the duration in seconds.
async fn run(bench: &Bench, upstream: &Upstream, mode: LaneKind) -> (LaneState, f64) {
    let begun = Instant::now();
    let dispatched =
        orchestrate::dispatch(bench.db(), mode, Some(upstream.id), true).await.unwrap();
    let lane = dispatched[0].lane.unwrap_or_else(|| panic!("{dispatched:?}"));
    let mut look = tokio::time::interval(std::time::Duration::from_millis(5));
    while work::lane_has_job(bench.db(), lane).await.unwrap() {
        look.tick().await;
    }
    let seconds = begun.elapsed().as_secs_f64();
    let state = lane::state(bench.db(), lane, 600).await.unwrap().unwrap();
    assert!(state.error_message.is_none(), "{state:?}");
    (state, seconds)
}

async fn until_workers(bench: &Bench) {
    bench.until("select count(*) from apalis.workers where worker_type = 'mirror' and last_seen > now() - interval '10 s'", 1).await;
}

async fn now(bench: &Bench) -> i64 {
    queue::now(bench.db()).await.unwrap().timestamp()
}

/// Compares a million events with a store that first lacks a thousand of them, and then none.
async fn in_step(bench: &Bench) {
    let events = notes(1_000_000, now(bench).await);
    let upstream_of = upstream(bench, "ws://nowhere.test", serde_json::json!({}), "down").await;
    for (index, part) in events.chunks(5000).enumerate() {
        let limits = Limits { bytes: 100_000, tags: 100 };
        let parsed: Vec<_> = part
            .iter()
            .map(|event| event::parse(&serde_json::to_string(event).unwrap(), limits).unwrap())
            .collect();
        let kept: Vec<_> = parsed
            .into_iter()
            .enumerate()
            .filter(|(inner, _)| (index * 5000 + inner) % 1000 != 500)
            .map(|(_, event)| event)
            .collect();
        event::store(bench.db(), Batch::new(upstream_of.id, &kept)).await.unwrap();
    }
    upstream::delete(bench.db(), upstream_of.id, None).await.unwrap();
    sqlx::query("vacuum analyze event").execute(&bench.bulk()).await.unwrap();
    let relay = relay_with(&events).await;
    let worker = bench.spawn("work");
    until_workers(bench).await;
    let upstream = upstream(bench, &relay.url, serde_json::json!({}), "down").await;
    // The first full run of this upstream.
    let (state, seconds) = run(bench, &upstream, LaneKind::Full).await;
    println!(
        "1,000 missing of 1,000,000: {} found and stored in {seconds:.2} s; {:.0} MB RSS",
        state.stored,
        worker.rss_mb()
    );
    for _ in 0..3 {
        let (state, seconds) = run(bench, &upstream, LaneKind::Full).await;
        assert_eq!(state.stored, 1000);
        println!("1,000,000 in step: {seconds:.2} s; {:.0} MB RSS", worker.rss_mb());
    }
}

/// Uploads 50,000 events to relays that have none, in rounds: at the defaults, and in batches of a fixed size without
/// pauses. The pace of every upload begins anew, because each has an upstream of its own.
async fn upload(bench: &Bench) {
    let events = notes(50_000, now(bench).await);
    let from = relay_with(&events).await;
    let worker = bench.spawn("work");
    until_workers(bench).await;
    let source = upstream(bench, &from.url, serde_json::json!({}), "down").await;
    run(bench, &source, LaneKind::Backfill).await;
    let fixed = |size: u32| serde_json::json!({"upload_adaptive": 0, "upload_delay_ms": 0, "upload_batch_size": size});
    let ways =
        [("defaults", serde_json::json!({})), ("always 50", fixed(50)), ("always 500", fixed(500))];
    let mut rates = Rates::default();
    for _ in 0..ROUNDS {
        for (what, config) in &ways {
            let to = relay_with(&[]).await;
            let target = upstream(bench, &to.url, config.clone(), "up").await;
            let (state, seconds) = run(bench, &target, LaneKind::Upload).await;
            assert_eq!((state.uploaded, to.count().await), (50_000, 50_000));
            rates.add(what, state.uploaded as f64 / seconds, worker.rss_mb());
            upstream::delete(bench.db(), target.id, None).await.unwrap();
        }
    }
    rates.print();
}
