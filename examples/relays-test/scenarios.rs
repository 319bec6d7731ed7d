//! The scenarios: down, up, both and live. Each compares what the relay serves with what Tender stores.

use std::{
    collections::{BTreeMap, HashSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use anyhow::Context;
use futures_util::future::LocalBoxFuture;
use nostr::{event::Event, key::Keys};
use nostr_database::{MemoryDatabase, MemoryDatabaseOptions};
use nostr_relay_builder::{LocalRelay, RelayBuilder, builder::RateLimit};
use serde_json::{Value, json};

use crate::{
    client::Client,
    events,
    relay::{Relay, Target},
    world::{World, wait_for},
};

/// The events of a scenario.
const EVENTS: usize = 10_000;
/// The events of the live scenario.
const LIVE: usize = 500;
/// The longest wait for live events.
const LIVE_WITHIN: Duration = Duration::from_mins(3);

/// What a scenario can reach.
pub(crate) struct Stage<'a> {
    world: World,
    relay: Relay,
    target: &'a Target,
    /// A relay of rust-nostr with NIP-77, the other side of uploads.
    origin: LocalRelay,
    origin_url: String,
}

/// A function that runs a scenario.
pub(crate) type Scenario = for<'a> fn(&'a Stage<'a>) -> LocalBoxFuture<'a, anyhow::Result<Found>>;

/// Every scenario by name.
pub(crate) fn all() -> [(&'static str, Scenario); 4] {
    [
        ("down", |stage| Box::pin(down(stage))),
        ("up", |stage| Box::pin(up(stage))),
        ("both", |stage| Box::pin(both(stage))),
        ("live", |stage| Box::pin(live(stage))),
    ]
}

/// The ids that one side has and the other lacks.
#[derive(Debug, Default)]
pub(crate) struct Found {
    compared: usize,
    lacking_here: HashSet<String>,
    lacking_there: HashSet<String>,
}

/// The end of a scenario.
pub(crate) struct Verdict {
    /// Whether nothing is missing, or the lanes name it.
    pub(crate) is_told: bool,
    found: Found,
    refused: BTreeMap<String, usize>,
    /// The events that are missing there, by kind.
    kinds: BTreeMap<i32, i64>,
    lanes: Vec<String>,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Found { compared, lacking_here, lacking_there } = &self.found;
        if lacking_here.is_empty() && lacking_there.is_empty() && self.refused.is_empty() {
            return write!(f, "exact, {compared} events");
        }
        write!(
            f,
            "{compared} events, {} missing here, {} missing there",
            lacking_here.len(),
            lacking_there.len()
        )?;
        if !self.kinds.is_empty() {
            write!(f, "\n        missing there by kind: {:?}", self.kinds)?;
        }
        for (words, events) in &self.refused {
            write!(f, "\n        the relay refused {events}: {words}")?;
        }
        self.lanes.iter().try_for_each(|lane| write!(f, "\n        {lane}"))
    }
}

/// Runs a scenario with a new relay and a new database.
pub(crate) async fn run(
    tender: &str,
    server: &str,
    target: &Target,
    scenario: Scenario,
) -> anyhow::Result<Verdict> {
    let relay = target.start().await?;
    let origin = origin().await?;
    let origin_url = origin.url().await.to_string().trim_end_matches('/').to_owned();
    let world = World::start(tender, server).await?;
    let mut stage = Stage { world, relay, target, origin, origin_url };
    let verdict = play(&stage, scenario).await;
    stage.relay.stop().await;
    stage.origin.shutdown();
    verdict
}

async fn play(stage: &Stage<'_>, scenario: Scenario) -> anyhow::Result<Verdict> {
    let found = scenario(stage).await;
    let found =
        found.with_context(|| format!("the end of the worker's log:\n{}\n", stage.world.log()))?;
    judge(stage, found).await
}

/// Compares what is missing with what the lanes and the verdicts of uploads name.
async fn judge(stage: &Stage<'_>, found: Found) -> anyhow::Result<Verdict> {
    let lanes = stage.world.lanes(&stage.relay.url).await?;
    let refused = stage.world.refused_uploads().await?;
    let is_refused = |id: &String| refused.values().any(|ids| ids.contains(id));
    let has_gap = lanes.iter().any(|lane| lane["status"] == "error" || gaps(lane) > 0);
    let is_told =
        (found.lacking_here.is_empty() || has_gap) && found.lacking_there.iter().all(is_refused);
    let refused = refused.into_iter().map(|(words, ids)| (words, ids.len())).collect();
    let kinds = stage.world.kinds(&found.lacking_there).await?;
    Ok(Verdict { is_told, found, refused, kinds, lanes: lanes.iter().map(line).collect() })
}

fn gaps(lane: &Value) -> i64 {
    ["gap_seconds", "gap_ids", "gap_spans"].iter().filter_map(|kind| lane[*kind].as_i64()).sum()
}

fn line(lane: &Value) -> String {
    let text = |name: &str| lane[name].as_str().unwrap_or("-").to_owned();
    format!(
        "{}: {}, stored {}, uploaded {}, violations {}, gaps {}, error {}",
        text("lane"),
        text("status"),
        lane["stored"],
        lane["uploaded"],
        lane["violations"],
        gaps(lane),
        text("error_message"),
    )
}

/// Starts a relay in memory.
async fn origin() -> anyhow::Result<LocalRelay> {
    let options = MemoryDatabaseOptions { events: true, max_events: None };
    let builder = RelayBuilder::default()
        .addr(std::net::Ipv4Addr::LOCALHOST.into())
        .database(Arc::new(MemoryDatabase::with_opts(options)))
        .rate_limit(RateLimit { max_reqs: 100_000, notes_per_minute: u32::MAX });
    let relay = LocalRelay::new(builder);
    relay.run().await?;
    Ok(relay)
}

impl Stage<'_> {
    /// Adds the relay under test as an upstream. On a shared relay, only the events of the run are mirrored.
    async fn add(&self, direction: &str, authors: &[Keys], more: &[&str]) -> anyhow::Result<()> {
        let mut arguments = vec!["mirror", "add", &self.relay.url, "--direction", direction];
        let authors: Vec<String> = authors.iter().map(|keys| keys.public_key().to_hex()).collect();
        let config = json!({ "filter": { "authors": authors } }).to_string();
        if self.target.is_shared() {
            arguments.extend(["--negentropy", "--config", &config]);
        }
        arguments.extend(more);
        self.world.command(&arguments).await.map(drop)
    }

    /// Mirrors events from the origin into Tender's store.
    async fn store(&self, events: &[Event]) -> anyhow::Result<()> {
        Client::connect(&self.origin_url).await?.publish(events).await?;
        self.world.command(&["mirror", "add", &self.origin_url, "--negentropy"]).await?;
        self.world.mirror("backfill", &self.origin_url).await;
        Ok(())
    }

    /// Publishes events to the relay under test.
    async fn publish(&self, events: &[Event]) -> anyhow::Result<HashSet<String>> {
        let published = Client::connect(&self.relay.url).await?.publish(events).await?;
        for (reason, count) in &published.refused {
            println!("      {} refused {count} of the test's events: {reason}", self.target.name());
        }
        Ok(published.accepted)
    }

    /// Compares both sides: `published` are the ids that the relay accepted from the test.
    async fn compare(&self, published: &HashSet<String>, is_up: bool) -> anyhow::Result<Found> {
        let mut client = Client::connect(&self.relay.url).await?;
        let held = client.held(published).await?;
        let known = self.world.known().await?;
        let mut found = Found { compared: held.len(), ..Found::default() };
        found.lacking_here = held.difference(&known).cloned().collect();
        if is_up {
            let live = self.world.live().await?;
            found.compared = live.union(&held).count();
            let there = client.held(&live).await?;
            found.lacking_there = live.difference(&there).cloned().collect();
        }
        Ok(found)
    }
}

async fn down(stage: &Stage<'_>) -> anyhow::Result<Found> {
    let authors = events::authors();
    let events = events::history(EVENTS, &authors);
    let published = stage.publish(&events).await?;
    stage.add("down", &authors, &[]).await?;
    stage.world.mirror("backfill", &stage.relay.url).await;
    stage.compare(&published, false).await
}

async fn up(stage: &Stage<'_>) -> anyhow::Result<Found> {
    let authors = events::authors();
    let events = events::history(EVENTS, &authors);
    stage.store(&events).await?;
    stage.add("up", &authors, &[]).await?;
    stage.world.mirror("upload", &stage.relay.url).await;
    stage.compare(&HashSet::new(), true).await
}

async fn both(stage: &Stage<'_>) -> anyhow::Result<Found> {
    let authors = events::authors();
    let events = events::history(EVENTS, &authors);
    let (theirs, ours) = events.split_at(EVENTS / 2);
    let published = stage.publish(theirs).await?;
    stage.store(ours).await?;
    stage.add("both", &authors, &[]).await?;
    stage.world.mirror("backfill", &stage.relay.url).await;
    stage.world.mirror("upload", &stage.relay.url).await;
    stage.compare(&published, true).await
}

async fn live(stage: &Stage<'_>) -> anyhow::Result<Found> {
    let authors = events::authors();
    let first = events::history(100, &authors);
    stage.store(&first).await?;
    stage.add("both", &authors, &["--live"]).await?;
    stage.world.command(&["mirror", "update", &stage.origin_url, "--live"]).await?;
    for url in [&stage.relay.url, &stage.origin_url] {
        wait_for(LIVE_WITHIN, "the live lane is held", async || {
            let lanes = stage.world.lanes(url).await?;
            Ok(lanes.iter().any(|lane| lane["lane"] == "live" && lane["status"] == "syncing"))
        })
        .await?;
    }
    let later = events::fresh(2 * LIVE, &authors);
    let (theirs, ours) = later.split_at(LIVE);
    let published = stage.publish(theirs).await?;
    Client::connect(&stage.origin_url).await?.publish(ours).await?;
    let in_step = wait_for(LIVE_WITHIN, "both sides are in step", async || {
        let found = stage.compare(&published, true).await?;
        Ok(found.lacking_here.is_empty() && found.lacking_there.is_empty())
    });
    let _the_verdict_says_it = in_step.await;
    stage.compare(&published, true).await
}
