//! `serve`, `api`, `work`: the long-running processes.

use std::sync::Arc;

use anyhow::{Context as _, bail};
use tender_jobs::{
    grasp,
    mirror::{
        self,
        deployment::{self, Profile},
    },
    provision::{self, SYNC_RELAY},
};
use tender_workers::{Wings, provision::zooid::Zooid};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

use super::{
    fleet,
    migrate::{open, open_and_migrate},
};
use crate::{
    config::Config,
    http::{self, Api},
    postgres::Database,
    signal,
};

/// Runs the API and the workers in one process.
pub(super) async fn serve(config: Config) -> anyhow::Result<()> {
    let database = if config.database.migrate_on_start {
        open_and_migrate(&config).await?
    } else {
        open(&config).await?
    };
    let zooid = zooid(&config)?;
    let shutdown = signal::shutdown()?;
    let api = start_api(&config, &database, zooid.clone(), true, &shutdown).await;
    let ended = match api {
        Ok(api) => {
            let worked = run_workers(&config, &database, zooid, &shutdown).await;
            let served = api.await.context("the API panicked").and_then(|served| served);
            worked.and(served)
        }
        Err(error) => Err(error),
    };
    stopped(database, ended).await
}

/// Closes the connections, and says that the process ended in order.
async fn stopped(database: Database, ended: anyhow::Result<()>) -> anyhow::Result<()> {
    database.close().await;
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// Runs the API without workers.
pub(super) async fn api(config: Config) -> anyhow::Result<()> {
    let (database, zooid) = (open(&config).await?, zooid(&config)?);
    let shutdown = signal::shutdown()?;
    let ended = match start_api(&config, &database, zooid, false, &shutdown).await {
        Ok(api) => api.await.context("the API panicked")?,
        Err(error) => Err(error),
    };
    stopped(database, ended).await
}

/// Runs the workers of the given queues, or of all queues.
pub(super) async fn work(
    mut config: Config,
    queues: Vec<(String, Option<u16>)>,
    concurrency: Option<u16>,
) -> anyhow::Result<()> {
    check_wings(&config, &queues)?;
    if !queues.is_empty() {
        config.runtime.queues = Some(queues.iter().map(|(name, _)| name.clone()).collect());
    }
    let named = queues.into_iter().filter_map(|(name, jobs)| Some((name, jobs?.into())));
    config.runtime.concurrency.extend(named);
    if let Some(concurrency) = concurrency {
        config.runtime.concurrency.insert(SYNC_RELAY.to_owned(), concurrency.into());
    }
    let (database, zooid) = (open(&config).await?, zooid(&config)?);
    let shutdown = signal::shutdown()?;
    let probes = start_probes(&config, &database, &shutdown).await?;
    let worked = run_workers(&config, &database, zooid, &shutdown).await;
    if let Some(probes) = probes {
        probes.await.context("the metrics panicked")?.context("the metrics' listener failed")?;
    }
    stopped(database, worked).await
}

/// Refuses to serve a queue whose wing is not configured.
fn check_wings(config: &Config, queues: &[(String, Option<u16>)]) -> anyhow::Result<()> {
    let is_of_provision = |name: &str| provision::QUEUES.contains(&name);
    let unserved = queues.iter().find(|(name, _)| is_of_provision(name) && config.zooid.is_none());
    if let Some((name, _)) = unserved {
        bail!(
            "queue {name} belongs to provisioning, which is not configured: set ZOOID_API_URL, \
             ROBOT_SECRET and RELAY_DOMAIN, or name other queues"
        );
    }
    Ok(())
}

/// Parses the name of a queue.
///
/// # Errors
/// A message for people.
pub(super) fn known_queue(name: &str) -> Result<String, String> {
    let known = tender_jobs::queues();
    if known.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("there is no queue {name}; there are {}", known.join(", ")))
}

/// Parses `NAME` or `NAME=JOBS`.
///
/// # Errors
/// A message for people.
pub(super) fn served_queue(text: &str) -> Result<(String, Option<u16>), String> {
    let Some((name, number)) = text.split_once('=') else { return Ok((known_queue(text)?, None)) };
    let jobs = number.parse().ok().filter(|jobs| (1..=1000).contains(jobs));
    let jobs = jobs.ok_or_else(|| format!("the number of jobs of {name} must be 1 to 1000"))?;
    Ok((known_queue(name)?, Some(jobs)))
}

fn zooid(config: &Config) -> anyhow::Result<Option<Arc<Zooid>>> {
    let client = config.zooid.clone().map(Zooid::new).transpose();
    Ok(client.context("failed to set up TLS")?.map(Arc::new))
}

/// `works`: whether the process has workers, whose heartbeats `/healthz` then asks for.
async fn start_api(
    config: &Config,
    database: &Database,
    zooid: Option<Arc<Zooid>>,
    works: bool,
    shutdown: &CancellationToken,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let bind = config.api.bind;
    let listener = TcpListener::bind(bind).await;
    let listener = listener.with_context(|| {
        format!("failed to listen on {bind}: set API_BIND to a free address of this machine")
    })?;
    tracing::info!(address = %listener.local_addr()?, base_url = config.api.base_url, "listening");
    fleet::say_entry(config, &database.pool).await?;
    let api = Api::new(database.pool.clone(), zooid, config.api.clone());
    let api = if works { api.alive_with(config.runtime.vitals.clone()) } else { api };
    let shutdown = shutdown.clone();
    Ok(tokio::spawn(async move {
        // If the listener fails, the workers stop too: half a service would hide the failure.
        let stopping = shutdown.clone().drop_guard();
        let served = http::serve(listener, api, shutdown).await;
        drop(stopping);
        served.context("the API's listener failed")
    }))
}

/// Serves a worker's metrics on `METRICS_BIND`, if it is set.
async fn start_probes(
    config: &Config,
    database: &Database,
    shutdown: &CancellationToken,
) -> anyhow::Result<Option<JoinHandle<std::io::Result<()>>>> {
    let Some(bind) = config.api.metrics_bind else { return Ok(None) };
    let listener = TcpListener::bind(bind).await;
    let listener = listener.with_context(|| {
        format!("failed to listen on {bind}: set METRICS_BIND to a free address of this machine")
    })?;
    tracing::info!(address = %listener.local_addr()?, "metrics");
    let api = Api::new(database.pool.clone(), None, config.api.clone());
    let api = api.alive_with(config.runtime.vitals.clone());
    let shutdown = shutdown.clone();
    Ok(Some(tokio::spawn(async move {
        // As for the API: a process without its probes is half dead.
        let stopping = shutdown.clone().drop_guard();
        let served = http::serve_probes(listener, api, shutdown).await;
        drop(stopping);
        served
    })))
}

async fn run_workers(
    config: &Config,
    database: &Database,
    zooid: Option<Arc<Zooid>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    say_wings(config);
    let mirror = mirror_settings(config, database).await?;
    let wings = Wings {
        provision: zooid.map(|zooid| (zooid, config.provision.clone())),
        mirror: Some(mirror),
        retention: config.retention,
        history: config.provision.history,
    };
    let runtime = config.runtime.clone();
    Ok(tender_workers::run(&database.pool, runtime, wings, shutdown.clone()).await?)
}

/// Returns the settings of the mirror for this process. The deployment's are in the database; the first
/// process with variables for them stores these.
async fn mirror_settings(
    config: &Config,
    database: &Database,
) -> anyhow::Result<tender_workers::mirror::Settings> {
    let environment = &config.mirror_environment;
    let deployment = deployment::import(&database.pool, environment).await;
    let deployment = deployment.context("failed to read the mirror's settings")?;
    for contradiction in environment.contradictions(&deployment) {
        tracing::warn!("{contradiction}");
    }
    let own = config.mirror.clone();
    let profile = if own.profile == Profile::Off { Profile::Off } else { deployment.profile };
    Ok(tender_workers::mirror::Settings { defaults: deployment.settings(), profile, ..own })
}

/// Logs which wings run, and why the others do not.
fn say_wings(config: &Config) {
    say_wing(config, "provisioning", &provision::QUEUES, reason_against_provisioning(config));
    say_wing(config, "mirroring", &mirror::QUEUES, None);
    say_wing(config, "GRASP", &grasp::QUEUES, None);
}

fn say_wing(config: &Config, wing: &str, queues: &[&str], off: Option<&str>) {
    let named = config.runtime.queues.as_ref();
    let is_served = |queue: &&str| named.is_none_or(|named| named.iter().any(|one| one == queue));
    let served: Vec<&str> = queues.iter().copied().filter(is_served).collect();
    match off {
        Some(reason) => tracing::warn!("{wing} is off: {reason}"),
        None if served.is_empty() => tracing::info!("{wing} is off: none of its queues is named"),
        None => tracing::info!(queues = served.join(", "), "{wing} runs"),
    }
}

/// A process without zooid cannot provision. The operator may have forgotten the variable, if others of
/// provisioning are set.
fn reason_against_provisioning(config: &Config) -> Option<&'static str> {
    match (config.zooid.is_some(), config.api.domains.is_empty()) {
        (true, _) => None,
        (false, true) => Some("ZOOID_API_URL is not set"),
        (false, false) => Some(
            "ZOOID_API_URL is not set, although RELAY_DOMAIN or ZOOID_INSTANCES is; relays that are \
             created here wait for another process",
        ),
    }
}
