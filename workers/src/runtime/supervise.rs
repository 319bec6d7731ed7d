//! Supervision: a worker that ends is restarted under a new name, for as long as the process lives.

use std::time::Duration;

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

use super::{STOP_WITHIN, Station, pause_or_stop, source::Source};

/// The pause before a worker whose database failed is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(1);

/// Runs the queue's worker until `shutdown`.
pub(super) async fn run(
    station: Station,
    db: PgPool,
    process: String,
    hint: watch::Receiver<u64>,
    shutdown: CancellationToken,
) {
    while !shutdown.is_cancelled() {
        // Unique per start: jobs under the name of a living worker are never rescued.
        let name = format!("{}-{}", station.queue, Uuid::new_v4());
        let source = Source::new(db.clone(), &station, process.clone(), hint.clone());
        let ended = run_once(&station, &name, source, &shutdown).await;
        if let Err(error) = leave(&db, &name).await {
            tracing::warn!(worker = name, %error, "could not put back fetched jobs; they will be rescued");
        }
        if let Err(error) = ended {
            tracing::warn!(worker = name, error = %chain(&error), "a worker ended; restarting it");
            pause_or_stop(RESTART_AFTER, &shutdown).await;
        }
    }
}

/// Puts back jobs that were not started, and removes the worker from the list.
async fn leave(db: &PgPool, worker: &str) -> Result<(), sqlx::Error> {
    queue::release(db, worker).await?;
    queue::unregister(db, worker).await
}

/// Runs the worker until its database fails, or after `shutdown` until its running jobs have ended or
/// [`STOP_WITHIN`] has passed.
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
    // Refused only if the worker has not started; then dropping it stops it.
    if context.stop().is_ok() {
        match tokio::time::timeout(STOP_WITHIN, running).await {
            Ok(ended) => ended?,
            Err(_) => {
                tracing::error!(
                    worker = name,
                    "attempts still ran at the end; they will be rescued"
                );
            }
        }
    }
    Ok(())
}

/// apalis's worker. Each job is a task of its own, so that jobs use every core, and a job that outlives
/// its worker still settles.
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
                    tracing::error!(%error, "a job's task ended without settling; it will be rescued");
                }
            }
        })
        .run()
        .boxed()
}

/// Returns an error with its sources on one line.
pub(super) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}
