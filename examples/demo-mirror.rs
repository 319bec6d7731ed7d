//! The demo of the mirror, with two local relays. Tender downloads 20,000 events from the first
//! relay by negentropy and uploads them to the second. During the download, the first relay is down
//! for two seconds. `bin/demo mirror` runs it.
#![allow(clippy::print_stdout, reason = "a demo prints")]

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use indicatif::{ProgressBar, ProgressStyle};
use nostr::{
    event::{Event, EventBuilder, FinalizeEvent, Kind},
    key::Keys,
    types::Timestamp,
};
use nostr_database::{MemoryDatabase, MemoryDatabaseOptions, NostrDatabase};
use nostr_relay_builder::{
    LocalRelay, RelayBuilder,
    builder::RateLimit,
    prelude::{Event as TheirEvent, Filter, JsonUtil},
};
use serde_json::json;
use sqlx::PgPool;
use tender::{
    config::{Config, Env, Needs},
    postgres::Database,
};
use tender_jobs::{
    database,
    mirror::{
        MIRROR,
        lane::{self, LaneKind, LaneState},
        upstream::{self, Change, Upstream},
        work,
    },
    queue,
};
use tender_workers::{
    Wings,
    mirror::{Profile, Settings as MirrorSettings, orchestrate},
    runtime::pause,
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const EVENTS: usize = 20_000;
/// The number of days over which the events are spread.
const DAYS: i64 = 7;
/// The demo fails if it takes longer than this.
const PATIENCE: Duration = Duration::from_mins(3);

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::read(&mut Env::of_process(), Needs::Database)?;
    config.database.url = None;
    config.database.data_dir.push(format!("demo-mirror-{}", std::process::id()));
    println!("Creating a private PostgreSQL, which the demo removes at its end …");
    let database = Database::open(&config.database).await?;
    let stop = CancellationToken::new();
    let shown = tokio::time::timeout(PATIENCE, show(&config, &database.pool, &stop)).await;
    stop.cancel();
    database.destroy().await;
    let _not_there = std::fs::remove_dir(&config.database.data_dir);
    shown.context("the demo took longer than three minutes")?
}

async fn show(config: &Config, db: &PgPool, stop: &CancellationToken) -> anyhow::Result<()> {
    database::migrate(db).await?;
    let now = queue::now(db).await?.timestamp();
    println!("Creating {EVENTS} events of the last {DAYS} days …");
    let events = tokio::task::spawn_blocking(move || events(now)).await?;
    let (mut first, second) = (Relay::start(None).await?, Relay::start(None).await?);
    first.fill(&events).await?;
    println!("Relay A at {} has all of them; relay B at {} has none.\n", first.url, second.url);
    let from = add(
        db,
        &first.url,
        json!({"negentropy": true}),
        json!({"backfill_since_hours": 24 * DAYS + 1}),
    )
    .await?;
    let to = add(
        db,
        &second.url,
        json!({"direction": "up"}),
        json!({"upload_batch_size": 500, "upload_delay_ms": 0}),
    )
    .await?;
    let workers = start_workers(config, db, stop);

    let begun = Instant::now();
    let mirrored = mirror(db, &from, &mut first).await?;
    let down = begun.elapsed();
    let begun = Instant::now();
    let lane = trigger(db, &to, LaneKind::Upload).await?;
    let uploaded = watch(db, lane, "upload to B    ", |lane| lane.uploaded).await?;
    let up = begun.elapsed();
    stop.cancel();
    workers.await.context("the workers panicked")?;
    report(&first, &second, &mirrored, down, &uploaded, up).await
}

/// Creates the events, signed by twelve authors.
fn events(now: i64) -> Vec<Event> {
    let authors: Vec<Keys> = (0..12).map(|_| Keys::generate()).collect();
    let note = |index: usize| {
        let back = DAYS * 86_400 * i64::try_from(index).ok()? / i64::try_from(EVENTS).ok()?;
        let at = u64::try_from(now - 60 - back).ok()?;
        EventBuilder::new(Kind::TextNote, format!("note {index}"))
            .custom_created_at(Timestamp::from(at))
            .finalize(&authors[index % authors.len()])
            .ok()
    };
    (0..EVENTS).filter_map(note).collect()
}

struct Relay {
    server: LocalRelay,
    database: Arc<MemoryDatabase>,
    url: String,
}

impl Relay {
    async fn start(kept: Option<(Arc<MemoryDatabase>, u16)>) -> anyhow::Result<Self> {
        let options = MemoryDatabaseOptions { events: true, max_events: None };
        let (database, port) = match kept {
            Some((database, port)) => (database, Some(port)),
            None => (Arc::new(MemoryDatabase::with_opts(options)), None),
        };
        let builder = RelayBuilder::default()
            .addr(std::net::Ipv4Addr::LOCALHOST.into())
            .database(database.clone())
            .rate_limit(RateLimit { max_reqs: 10_000, notes_per_minute: u32::MAX });
        let builder = match port {
            Some(port) => builder.port(port),
            None => builder,
        };
        let relay = LocalRelay::new(builder);
        relay.run().await?;
        let url = relay.url().await.to_string().trim_end_matches('/').to_owned();
        Ok(Self { server: relay, database, url })
    }

    async fn fill(&self, events: &[Event]) -> anyhow::Result<()> {
        for event in events {
            let theirs = TheirEvent::from_json(serde_json::to_string(event)?)?;
            self.database.save_event(&theirs).await?;
        }
        Ok(())
    }

    /// Stops the relay for two seconds, then restarts it with its events on the same port.
    async fn kill_and_restart(&mut self) -> anyhow::Result<()> {
        let port = self.url.rsplit(':').next().and_then(|port| port.parse().ok());
        let port = port.context("the relay's address has no port")?;
        self.server.shutdown();
        pause(Duration::from_secs(2)).await;
        *self = Self::start(Some((self.database.clone(), port))).await?;
        Ok(())
    }

    async fn count(&self) -> anyhow::Result<usize> {
        Ok(self.database.count(Filter::new()).await?)
    }
}

async fn add(
    db: &PgPool,
    url: &str,
    fields: serde_json::Value,
    config: serde_json::Value,
) -> anyhow::Result<Upstream> {
    let mut change: Change = serde_json::from_value(fields)?;
    (change.url, change.config) = (Some(url.to_owned()), Some(config));
    Ok(upstream::create(db, &change).await?)
}

/// Starts the workers of the mirror, without recurring jobs: the demo triggers every mode itself.
fn start_workers(config: &Config, db: &PgPool, stop: &CancellationToken) -> JoinHandle<()> {
    let mirror =
        MirrorSettings { profile: Profile::Off, allow_private: true, ..config.mirror.clone() };
    let wings = Wings {
        provision: None,
        mirror: Some(mirror),
        retention: config.retention,
        history: config.provision.history,
    };
    let (db, runtime, stop) = (db.clone(), config.runtime.clone(), stop.clone());
    tokio::spawn(async move {
        if let Err(error) = tender_workers::run(&db, runtime, wings, stop).await {
            println!("the workers ended: {error}");
        }
    })
}

async fn trigger(db: &PgPool, upstream: &Upstream, mode: LaneKind) -> anyhow::Result<Uuid> {
    let dispatched = orchestrate::dispatch(db, mode, Some(upstream.id), true).await?;
    dispatched.first().and_then(|one| one.lane).context("nothing was enqueued")
}

/// Downloads the events, and restarts the relay after a third of them.
async fn mirror(db: &PgPool, from: &Upstream, relay: &mut Relay) -> anyhow::Result<LaneState> {
    let lane = trigger(db, from, LaneKind::Backfill).await?;
    let killing = async {
        let mut look = tokio::time::interval(Duration::from_millis(20));
        loop {
            look.tick().await;
            let stored = lane::state(db, lane, 600).await?.map_or(0, |lane| lane.stored);
            if usize::try_from(stored).unwrap_or(0) > EVENTS / 3 {
                break;
            }
        }
        relay.kill_and_restart().await
    };
    let watching = watch(db, lane, "download from A", |lane| lane.stored);
    let (state, killed) = tokio::join!(watching, killing);
    killed?;
    state
}

/// Shows a progress bar until the lane has no job.
async fn watch(
    db: &PgPool,
    lane: Uuid,
    name: &'static str,
    done: fn(&LaneState) -> i64,
) -> anyhow::Result<LaneState> {
    let bar = ProgressBar::new(u64::try_from(EVENTS)?);
    bar.set_style(ProgressStyle::with_template("{prefix} {bar:30} {pos:>6} events  {msg}")?);
    bar.set_prefix(name);
    let mut look = tokio::time::interval(Duration::from_millis(50));
    loop {
        look.tick().await;
        let is_open = work::lane_has_job(db, lane).await?;
        let state = lane::state(db, lane, 600).await?.context("the lane was deleted")?;
        bar.set_position(u64::try_from(done(&state)).unwrap_or(0));
        bar.set_message(waiting(db).await?.unwrap_or_else(|| state.status.clone()));
        if !is_open {
            bar.finish();
            return Ok(state);
        }
    }
}

/// Returns the error of the last attempt if the lane's job waits for a retry.
async fn waiting(db: &PgPool) -> anyhow::Result<Option<String>> {
    let filter = queue::JobFilter {
        queue: Some(MIRROR.to_owned()),
        state: Some(queue::JobState::Retrying),
        ..queue::JobFilter::default()
    };
    let job = queue::jobs(db, &filter, &queue::Page::First, 1).await?.pop();
    Ok(job.map(|job| format!("attempt {} failed: {}", job.attempts, job.error.unwrap_or_default())))
}

async fn report(
    first: &Relay,
    second: &Relay,
    mirrored: &LaneState,
    down: Duration,
    uploaded: &LaneState,
    up: Duration,
) -> anyhow::Result<()> {
    let (at_a, at_b) = (first.count().await?, second.count().await?);
    println!("\nA has {at_a} events, B has {at_b}.");
    println!(
        "Downloaded from A: {} stored, {} duplicate, {} rejected, in {:.1} s; A was down for \
         two of them.",
        mirrored.stored,
        mirrored.duplicate,
        mirrored.rejected,
        down.as_secs_f64()
    );
    println!("Uploaded to B: {} accepted, in {:.1} s.", uploaded.uploaded, up.as_secs_f64());
    ensure!(
        at_a == EVENTS && at_b == EVENTS,
        "A and B are not in step: each should have {EVENTS} events"
    );
    println!("A and B are in step.");
    Ok(())
}
