//! `serve`, `api`, `work`: the processes that stay.

use std::sync::Arc;

use anyhow::Context as _;
use tender_jobs::queue;
use tender_workers::{Context, zooid::Zooid};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

use super::open;
use crate::{
    config::Config,
    http::{self, Api},
    postgres::Database,
};

/// API and workers in one process.
pub(super) async fn serve(config: Config) -> anyhow::Result<()> {
    let (database, zooid) = (open(&config).await?, zooid(&config)?);
    let shutdown = on_signal()?;
    let api = start_api(&config, &database, zooid.clone(), &shutdown).await;
    let ended = match api {
        Ok(api) => {
            run_workers(&config, &database, zooid, &shutdown).await;
            api.await.context("the API panicked")?
        }
        Err(error) => Err(error),
    };
    database.close().await;
    ended
}

/// Only the API.
pub(super) async fn api(config: Config) -> anyhow::Result<()> {
    let (database, zooid) = (open(&config).await?, zooid(&config)?);
    let shutdown = on_signal()?;
    let ended = match start_api(&config, &database, zooid, &shutdown).await {
        Ok(api) => api.await.context("the API panicked")?,
        Err(error) => Err(error),
    };
    database.close().await;
    ended
}

/// Only workers, of the queues named or of all.
pub(super) async fn work(
    mut config: Config,
    queues: Vec<(String, Option<u16>)>,
    concurrency: Option<u16>,
) -> anyhow::Result<()> {
    if !queues.is_empty() {
        config.work.queues = queues.iter().map(|(name, _)| name.clone()).collect();
    }
    for (name, jobs) in queues {
        let Some(jobs) = jobs.map(usize::from) else { continue };
        if name == queue::SYNC_RELAY {
            config.work.sync_concurrency = jobs;
        } else {
            config.work.concurrency.insert(name, jobs);
        }
    }
    if let Some(concurrency) = concurrency {
        config.work.sync_concurrency = concurrency.into();
    }
    let (database, zooid) = (open(&config).await?, zooid(&config)?);
    let shutdown = on_signal()?;
    tracing::info!(queues = ?config.work.queues, concurrency = config.work.sync_concurrency, "working");
    let probes = start_probes(&config, &database, &shutdown).await?;
    run_workers(&config, &database, zooid, &shutdown).await;
    if let Some(probes) = probes {
        probes.await.context("the metrics panicked")?.context("the metrics' listener broke")?;
    }
    database.close().await;
    tracing::info!("stopped");
    Ok(())
}

/// Refuses names that no queue has.
pub(super) fn known_queues<Name: AsRef<str>>(
    named: impl IntoIterator<Item = Name>,
) -> anyhow::Result<()> {
    let mut named = named.into_iter();
    match named.find(|name| !queue::QUEUES.contains(&name.as_ref())) {
        Some(unknown) => anyhow::bail!(
            "there is no queue {}; there are {}",
            unknown.as_ref(),
            queue::QUEUES.join(", ")
        ),
        None => Ok(()),
    }
}

/// Reads `NAME` or `NAME=JOBS-AT-A-TIME`.
pub(super) fn served_queue(text: &str) -> anyhow::Result<(String, Option<u16>)> {
    let (name, number) = match text.split_once('=') {
        None => (text, None),
        Some((name, number)) => (name, Some(number)),
    };
    known_queues([name])?;
    let Some(number) = number else { return Ok((name.to_owned(), None)) };
    let jobs = number.parse().ok().filter(|jobs| (1..=1000).contains(jobs));
    let jobs = jobs.with_context(|| format!("`{text}`: jobs at a time are 1 to 1000"))?;
    Ok((name.to_owned(), Some(jobs)))
}

fn zooid(config: &Config) -> anyhow::Result<Option<Arc<Zooid>>> {
    let client = config.zooid.clone().map(Zooid::new).transpose();
    Ok(client.context("failed to set up TLS")?.map(Arc::new))
}

async fn start_api(
    config: &Config,
    database: &Database,
    zooid: Option<Arc<Zooid>>,
    shutdown: &CancellationToken,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let bind = config.api.bind;
    let listener = TcpListener::bind(bind).await;
    let listener = listener.with_context(|| {
        format!("failed to listen on {bind}: set API_BIND to a free address of this machine")
    })?;
    tracing::info!(address = %listener.local_addr()?, base_url = config.api.base_url, "listening");
    let api = Api::new(database.pool.clone(), zooid, config.api.clone());
    let shutdown = shutdown.clone();
    Ok(tokio::spawn(async move {
        // Should the listener break, the workers stop too: half a service hides a failure.
        let stopping = shutdown.clone().drop_guard();
        let served = http::serve(listener, api, shutdown).await;
        drop(stopping);
        served.context("the API's listener broke")
    }))
}

/// A worker's metrics, where `METRICS_BIND` says.
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
    Ok(Some(tokio::spawn(http::serve_probes(listener, api, shutdown.clone()))))
}

async fn run_workers(
    config: &Config,
    database: &Database,
    zooid: Option<Arc<Zooid>>,
    shutdown: &CancellationToken,
) {
    let Some(zooid) = zooid else { return }; // `Needs::Zooid` was checked
    let context = Context::new(database.pool.clone(), zooid, config.work.clone());
    tender_workers::run(context, shutdown.clone()).await;
}

/// Cancelled by SIGTERM or SIGINT; a second signal ends the process at once.
pub(crate) fn on_signal() -> anyhow::Result<CancellationToken> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let shutdown = CancellationToken::new();
    let token = shutdown.clone();
    tokio::spawn(async move {
        for is_second in [false, true] {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
            if is_second {
                std::process::exit(130);
            }
            tracing::info!("stopping; what runs may finish, a second signal ends it at once");
            token.cancel();
        }
    });
    Ok(shutdown)
}
