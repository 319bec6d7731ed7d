//! The three wings in one process, on one screen: relays reach a stand-in for zooid, events go from one
//! relay to another, and a service finds and fetches what belongs to its repositories. `bin/demo all`
//! runs it.
#![allow(clippy::print_stdout, reason = "a demo prints")]

#[path = "../demo-grasp/events.rs"]
#[allow(dead_code, reason = "this demo names no relay")]
mod events;
#[path = "../demo-grasp/relays.rs"]
#[allow(dead_code, reason = "this demo cuts no line")]
mod relays;
mod screen;

use std::{collections::HashMap, sync::Arc, time::Duration};

use anyhow::Context as _;
use nostr::key::Keys;
use serde_json::json;
use sqlx::PgPool;
use tender::{
    config::{Config, Env, Needs},
    demo::zooid::{Fault, ZooidStandIn},
    postgres::Database,
};
use tender_jobs::{
    database,
    grasp::service::{self, NewService},
    mirror::{
        lane::LaneKind,
        upstream::{self, Change as UpstreamChange, Upstream},
    },
    provision::{
        backoff::Backoff,
        relay::{self, By, Change, NewRelay},
    },
    queue,
};
use tender_workers::{
    Wings,
    mirror::{Settings as MirrorSettings, orchestrate},
    provision::{
        Settings,
        zooid::{DEFAULT_TIMEOUT, Zooid, ZooidSettings},
    },
};
use tokio_util::sync::CancellationToken;

use events::{Events, Size};
use relays::Relay;

/// The demo fails if it takes longer than this.
const PATIENCE: Duration = Duration::from_mins(3);
const DOMAIN: &str = "spaces.example";
const NAMES: [&str; 6] = ["anchors", "beacons", "compass", "dockyard", "ensign", "fathom"];

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let _set_already = rustls::crypto::ring::default_provider().install_default();
    let mut config = Config::read(&mut Env::of_process(), Needs::Database)?;
    config.database.url = None;
    config.database.data_dir.push(format!("demo-all-{}", std::process::id()));
    println!("Creating a private PostgreSQL, which the demo removes at its end …");
    let database = Database::open(&config.database).await?;
    let stop = CancellationToken::new();
    let shown = tokio::time::timeout(PATIENCE, run(&config, &database.pool, &stop)).await;
    stop.cancel();
    database.destroy().await;
    let _not_there = std::fs::remove_dir(&config.database.data_dir);
    shown.context("the demo took longer than three minutes")?
}

async fn run(config: &Config, db: &PgPool, stop: &CancellationToken) -> anyhow::Result<()> {
    database::migrate(db).await?;
    let robot = Keys::generate();
    let stand_in = ZooidStandIn::start(vec![robot.public_key()]).await?;
    create_relays(db, &stand_in).await?;
    let (from, to) = (Relay::start().await?, Relay::start().await?);
    let (own, a, b) = (Relay::start().await?, Relay::start().await?, Relay::start().await?);
    let now = queue::now(db).await?.timestamp();
    let urls = [&own.url, &a.url, &b.url, &b.url, &b.url, &b.url].map(Clone::clone);
    let size = Size { each: 10, total: 2_000 };
    let events = tokio::task::spawn_blocking(move || Events::create(now, &urls, size)).await?;
    own.fill(&events.own).await?;
    a.fill(&events.a).await?;
    b.fill(&[events.b.as_slice(), &events.c].concat()).await?;
    from.fill(&[events.a.as_slice(), &events.b, &events.c].concat()).await?;
    let mirrored = events.a.len() + events.b.len() + events.c.len();
    let service = NewService { url: own.url.clone(), private: true, ..NewService::default() };
    service::create(db, &service).await?;
    let down = upstream(db, &from.url, "down").await?;
    let up = upstream(db, &to.url, "up").await?;
    let workers = start_workers(config, db, &stand_in, robot, stop)?;
    for (upstream, mode) in [(&down, LaneKind::Backfill), (&up, LaneKind::Upload)] {
        orchestrate::dispatch(db, mode, Some(upstream.id), true).await?;
    }
    let wanted = screen::Wanted {
        relays: NAMES.len(),
        mirrored,
        accepted: events.total(),
        to: &to,
        own: &own,
    };
    screen::until_done(db, &wanted).await?;
    stop.cancel();
    workers.await.context("the workers panicked")
}

/// Creates six relays; the first calls for two of them fail.
async fn create_relays(db: &PgPool, stand_in: &ZooidStandIn) -> anyhow::Result<()> {
    let by = By { who: "demo".to_owned(), trace: None };
    for (number, name) in NAMES.into_iter().enumerate() {
        let change = Change { subdomain: Some(name.to_owned()), ..Change::default() };
        let tenant = Keys::generate().public_key().to_hex();
        let new = NewRelay::parse(tenant, &change, DOMAIN, &[DOMAIN.to_owned()]);
        let new = new.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let relay = relay::create(db, &new, &by).await?;
        if number % 3 == 1 {
            stand_in.plan(Some(relay.id.as_str()), Fault::Status(503, None), Some(2));
        }
    }
    Ok(())
}

async fn upstream(db: &PgPool, url: &str, direction: &str) -> anyhow::Result<Upstream> {
    let config = json!({
        "backfill_since_hours": 24, "upload_batch_size": 500, "upload_delay_ms": 0,
        "filter": { "kinds": [1111, 1617, 1618, 1621, 30617, 30618] },
    });
    let change = UpstreamChange {
        url: Some(url.to_owned()),
        direction: Some(direction.to_owned()),
        negentropy: Some(true),
        live: Some(true),
        config: Some(config),
        ..UpstreamChange::default()
    };
    Ok(upstream::create(db, &change).await?)
}

fn start_workers(
    config: &Config,
    db: &PgPool,
    stand_in: &ZooidStandIn,
    robot: Keys,
    stop: &CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let zooid = Arc::new(Zooid::new(ZooidSettings {
        default_url: stand_in.url().parse()?,
        instances: HashMap::new(),
        robot,
        blossom: None,
        livekit: None,
        timeout: DEFAULT_TIMEOUT,
    })?);
    // Short delays, so that the demo ends within seconds.
    let backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(4), 6, 0.1)?;
    let wings = Wings {
        provision: Some((zooid, Settings { backoff, ..config.provision.clone() })),
        mirror: Some(MirrorSettings { allow_private: true, ..config.mirror.clone() }),
        retention: config.retention,
        history: config.provision.history,
    };
    let (db, runtime, stop) = (db.clone(), config.runtime.clone(), stop.clone());
    Ok(tokio::spawn(async move {
        if let Err(error) = tender_workers::run(&db, runtime, wings, stop).await {
            println!("the workers ended: {error}");
        }
    }))
}
