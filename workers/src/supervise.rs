//! A worker that is started again, under a new name, for as long as the process lives.

use std::{sync::Arc, time::Duration};

use apalis::layers::WorkerBuilderExt;
use apalis_core::{
    error::WorkerError,
    worker::{builder::WorkerBuilder, context::WorkerContext},
};
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::PgPool;
use tender_jobs::queue::{self, Job};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{STOP_WITHIN, source::Source};

/// Pause before a worker whose database went away is started again.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// What serves a queue in this process.
#[derive(Clone)]
pub(crate) struct Station {
    pub(crate) queue: &'static str,
    /// Jobs at the same time; also how many are fetched at once, so that none waits for long.
    pub(crate) concurrency: usize,
    /// Longest wait between two fetches of an empty queue.
    pub(crate) poll: Duration,
    pub(crate) handler: Arc<dyn Fn(Job) -> BoxFuture<'static, ()> + Send + Sync>,
}

/// Runs the queue's worker until `shutdown`.
pub(crate) async fn run(
    station: Station,
    db: PgPool,
    process: String,
    hint: watch::Receiver<u64>,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        // Unique per start: jobs under a name that is alive are never rescued.
        let name = format!("{}-{}", station.queue, Uuid::new_v4());
        let source = Source::new(db.clone(), &station, process.clone(), hint.clone());
        let ended = run_once(&station, &name, source, &shutdown).await;
        if let Err(error) = leave(&db, &name).await {
            tracing::warn!(worker = name, %error, "could not give back fetched jobs; they are rescued");
        }
        if let Err(error) = ended {
            tracing::warn!(worker = name, error = %chain(&error), "a worker ended; starting it again");
            let _stop_or_time = tokio::time::timeout(RESTART_AFTER, shutdown.cancelled()).await;
        }
    }
}

/// Gives back what was only fetched, and goes off the list of workers.
async fn leave(db: &PgPool, worker: &str) -> Result<(), sqlx::Error> {
    queue::release(db, worker).await?;
    queue::unregister(db, worker).await
}

/// One life of the worker: until its database goes away, or until `shutdown` and its running jobs
/// have ended, or [`STOP_WITHIN`] has passed.
async fn run_once(
    station: &Station,
    name: &str,
    source: Source,
    shutdown: &CancellationToken,
) -> Result<(), WorkerError> {
    let context = WorkerContext::new(name);
    let mut running = worker(&context, source, station);
    tokio::select! {
        ended = &mut running => return ended,
        () = shutdown.cancelled() => {}
    }
    // Refused only when the worker has not started; dropping it then is the stop.
    if context.stop().is_ok() {
        match tokio::time::timeout(STOP_WITHIN, running).await {
            Ok(ended) => ended?,
            Err(_) => {
                tracing::error!(worker = name, "attempts still ran at the end; they are rescued");
            }
        }
    }
    Ok(())
}

/// apalis's worker. Each job is a task of its own, so that jobs use every core, and one that
/// outlives its worker still settles.
fn worker(
    context: &WorkerContext,
    source: Source,
    station: &Station,
) -> BoxFuture<'static, Result<(), WorkerError>> {
    let handler = station.handler.clone();
    WorkerBuilder::new(context)
        .backend(source)
        .concurrency(station.concurrency)
        .build(move |job: Job| {
            let running = tokio::spawn(handler(job));
            async move {
                if let Err(error) = running.await {
                    tracing::error!(%error, "a job's task ended without settling; it is rescued");
                }
            }
        })
        .run()
        .boxed()
}

/// An error with its sources, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
