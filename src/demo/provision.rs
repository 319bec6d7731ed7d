//! The demo of the provision wing: twelve relays reach a stand-in for zooid, some of them after
//! failures.

mod view;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nostr::key::Keys;
use tender_jobs::{
    database,
    provision::{
        backoff::Backoff,
        relay::{self, By, Change, NewRelay, Relay, RelayId, Search},
    },
};
use tender_workers::{
    Wings,
    provision::{
        Settings,
        zooid::{DEFAULT_TIMEOUT, Zooid, ZooidSettings},
    },
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::zooid::{Fault, ZooidStandIn};
use crate::{
    config::{ApiConfig, Config, DatabaseConfig},
    dashboard,
    http::{self, Api},
    postgres::Database,
    signal,
};
use view::View;

/// The domain of the relays. It is not in DNS.
const DOMAIN: &str = "spaces.example";
const NAMES: [&str; 12] = [
    "anchors", "beacons", "compass", "dockyard", "ensign", "fathom", "galley", "harbour", "isobar",
    "jetsam", "keelson", "lantern",
];
/// The first and the longest delay of a retry. They are short, so that the demo ends within
/// seconds.
const SHORT_SCHEDULE: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(4));
/// The longest wait for the relays; after that the demo fails.
const PATIENCE: Duration = Duration::from_mins(2);
/// How often the ledger is read.
const LOOK: Duration = Duration::from_millis(100);

/// Runs the demo until a signal. With `once` it ends when all relays are synced.
///
/// # Errors
/// A part of the demo could not be started, or the relays were not synced within 2 minutes.
pub async fn run(config: &Config, once: bool) -> anyhow::Result<()> {
    let shutdown = signal::shutdown()?;
    let view = View::new();
    view.say("Creating a private PostgreSQL; the demo removes it when it ends …");
    let name = format!("demo-{}", std::process::id());
    let data_dir = config.database.data_dir.join(name);
    let private =
        DatabaseConfig { url: None, data_dir: data_dir.clone(), ..config.database.clone() };
    let database = Database::open(&private).await?;
    let shown = show(config, &database, &view, once, &shutdown).await;
    shutdown.cancel();
    database.destroy().await;
    let _not_there_or_not_ours = std::fs::remove_dir(&data_dir);
    shown
}

async fn show(
    config: &Config,
    database: &Database,
    view: &View,
    once: bool,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    database::migrate(&database.pool).await?;
    let robot = Keys::generate();
    let stand_in = ZooidStandIn::start(vec![robot.public_key()]).await?;
    let zooid = Arc::new(Zooid::new(ZooidSettings {
        default_url: stand_in.url().parse()?,
        instances: HashMap::new(),
        robot,
        blossom: None,
        livekit: None,
        timeout: DEFAULT_TIMEOUT,
    })?);
    let api = start_api(config, database, zooid.clone(), shutdown).await?;
    view.say(&format!(
        "The stand-in for zooid listens at {}, Tender's API at {api}.",
        stand_in.url()
    ));
    view.say(
        "Failed attempts are retried after 1, 2, 4, 4 … s; the default is 30 s, 1, 2, 4, 8, 15 min.\n",
    );
    let relays = create(database, &stand_in).await?;
    let workers = start_workers(config, database, zooid, shutdown)?;
    let synced = watch(database, view, &relays, shutdown).await;
    if let Ok(Some(took)) = &synced {
        report(&stand_in, view, relays.len(), *took);
        if !once {
            let link = dashboard::new_link(&database.pool).await?;
            suggest(database, view, &api, &link);
            shutdown.cancelled().await;
        }
    }
    shutdown.cancel();
    workers.await.context("the workers panicked")?;
    synced.map(|_took| ())
}

async fn start_api(
    config: &Config,
    database: &Database,
    zooid: Arc<Zooid>,
    shutdown: &CancellationToken,
) -> anyhow::Result<String> {
    let listener = match TcpListener::bind(config.api.bind).await {
        Ok(listener) => listener,
        Err(_) => TcpListener::bind(("127.0.0.1", 0)).await?, // the configured port is in use
    };
    let base_url = format!("http://{}", listener.local_addr()?);
    let api_config = ApiConfig {
        proxies: crate::config::Proxies::default(),
        stats_auth: true,
        base_url: base_url.clone(),
        relay_domain: DOMAIN.to_owned(),
        domains: vec![DOMAIN.to_owned()],
        ..config.api.clone()
    };
    let api = Api::new(database.pool.clone(), Some(zooid), api_config);
    tokio::spawn(http::serve(listener, api, shutdown.clone()));
    Ok(base_url)
}

fn start_workers(
    config: &Config,
    database: &Database,
    zooid: Arc<Zooid>,
    shutdown: &CancellationToken,
) -> anyhow::Result<tokio::task::JoinHandle<()>> {
    let (base, cap) = SHORT_SCHEDULE;
    let settings =
        Settings { backoff: Backoff::new(base, cap, 6, 0.1)?, ..config.provision.clone() };
    let wings = Wings {
        provision: Some((zooid, settings)),
        mirror: None,
        retention: config.retention,
        history: config.provision.history,
    };
    let (db, runtime, stop) = (database.pool.clone(), config.runtime.clone(), shutdown.clone());
    Ok(tokio::spawn(async move {
        if let Err(error) = tender_workers::run(&db, runtime, wings, stop).await {
            tracing::error!(%error, "the workers ended");
        }
    }))
}

/// Creates twelve relays and plans faults for half of them. No worker runs yet.
async fn create(database: &Database, stand_in: &ZooidStandIn) -> anyhow::Result<Vec<RelayId>> {
    let by = By { who: "demo".to_owned(), trace: None };
    let mut ids = Vec::new();
    for (number, name) in NAMES.into_iter().enumerate() {
        let change = Change {
            subdomain: Some(name.to_owned()),
            info_name: Some(format!("The {name}")),
            ..Change::default()
        };
        let tenant = Keys::generate().public_key().to_hex();
        let new = NewRelay::parse(tenant, &change, DOMAIN, &[DOMAIN.to_owned()]);
        let new = new.map_err(|problems| anyhow::anyhow!("{problems:?}"))?;
        let relay = relay::create(&database.pool, &new, &by).await?;
        for (fault, times) in trouble(number) {
            stand_in.plan(Some(relay.id.as_str()), fault, Some(times));
        }
        ids.push(relay.id);
    }
    Ok(ids)
}

/// Returns the faults of the relay with this number, and how often each occurs.
fn trouble(number: usize) -> Vec<(Fault, u32)> {
    match number {
        1 => vec![(Fault::Status(503, None), 2)],
        3 => vec![(Fault::DropAfter, 1)],
        4 => vec![(Fault::Garbage, 1), (Fault::Status(500, None), 2)],
        6 => vec![(Fault::DropBefore, 3)],
        8 => vec![(Fault::Status(429, Some(2)), 1)],
        10 => vec![(Fault::HalfAnswer, 1), (Fault::Status(502, None), 1)],
        _ => vec![],
    }
}

/// Shows the relays until all are synced. Returns the time that it took, or `None` if the demo was
/// stopped before.
async fn watch(
    database: &Database,
    view: &View,
    ids: &[RelayId],
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<Duration>> {
    let started = Instant::now();
    let mut table = view.table(ids.len());
    loop {
        let mut relays = relay::list(&database.pool, &Search::default(), 1000).await?;
        relays.retain(|relay| ids.contains(&relay.id));
        relays.sort_by_key(Relay::host);
        table.show(&relays, tender_jobs::queue::now(&database.pool).await?);
        if relays.iter().all(|relay| relay.synced) {
            table.finish();
            return Ok(Some(started.elapsed()));
        }
        if started.elapsed() > PATIENCE {
            table.finish();
            anyhow::bail!("the relays were not synced after {} s", PATIENCE.as_secs());
        }
        if tokio::time::timeout(LOOK, shutdown.cancelled()).await.is_ok() {
            return Ok(None);
        }
    }
}

fn report(stand_in: &ZooidStandIn, view: &View, relays: usize, took: Duration) {
    let calls = stand_in.calls();
    let failed = calls.iter().filter(|call| !matches!(call.status, Some(200 | 201))).count();
    let created = calls.iter().filter(|call| call.created).count();
    view.say(&format!(
        "\n{relays} relays in step after {:.1} s: {} calls to zooid, {failed} of which failed or \
         were cut off; {created} relays created, each once; {} calls beside another call for the \
         same relay.",
        took.as_secs_f64(),
        calls.len(),
        stand_in.overlaps().len(),
    ));
}

fn suggest(database: &Database, view: &View, api: &str, link: &str) {
    let dir = database.socket_dir().and_then(|dir| dir.parent()).and_then(|dir| dir.parent());
    let dir = dir.map(|dir| dir.display().to_string()).unwrap_or_default();
    view.say(&format!(
        "\nDashboard (the link is valid once, for ten minutes): {api}{link}\n\n\
         The demo keeps running. In another terminal, in this directory:\n\
         \x20 export TENDER_DATA_DIR={dir} RELAY_DOMAIN={DOMAIN}\n\
         \x20 tender relay list                          all relays\n\
         \x20 tender relay show anchors.{DOMAIN}   one relay with its activity\n\
         \x20 tender relay update anchors.{DOMAIN} --name Anchors\n\
         \x20 tender queue status                        the jobs by queue\n\
         \x20 curl {api}/metrics         metrics for Prometheus\n\
         \x20 curl {api}/openapi.json    the OpenAPI document\n\
         (`tender` is target/debug/tender.) Ctrl-C ends the demo and removes its database."
    ));
}
