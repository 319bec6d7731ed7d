//! Supervision: a worker that ends is restarted under a new name, for as long as the process lives.

use std::{sync::Arc, time::Duration};

use apalis_core::worker::{builder::WorkerBuilder, context::WorkerContext};
use futures_util::{FutureExt, future::BoxFuture};
use sqlx::PgPool;
use tender_jobs::{
    database::{answered, hang_up},
    queue::{self, process::Orders},
};
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{
    STOP_WITHIN, STUCK_AFTER, Station, failpoint,
    fetch::Fetcher,
    heart::{Heart, WorkerError},
    hints::Hints,
    orders::at_once,
    pause_or_stop,
    slots::{Place, Slots, YOUNG},
    source::{Slotted, Source},
};

/// The pause before a worker whose database failed is restarted.
const RESTART_AFTER: Duration = Duration::from_secs(1);
/// Workers that died young within five minutes, before the next one is suspected.
const SUSPECT_AFTER: i64 = 3;
/// The longest wait for the ledger when a worker leaves; jobs that it does not put back are rescued.
const LEAVE_WITHIN: Duration = Duration::from_secs(2);

/// The workers of a process that register at the same time. If all did, a process would open a connection for each,
/// and its pool would keep them.
pub(super) const REGISTERING: usize = 2;

/// What a station's workers share.
pub(super) struct Post {
    pub(super) station: Station,
    pub(super) db: PgPool,
    pub(super) process: String,
    pub(super) hints: Hints,
    pub(super) orders: watch::Receiver<Orders>,
    pub(super) heart: Arc<Heart>,
    /// Turns to register; see [`REGISTERING`].
    pub(super) turns: Arc<Semaphore>,
}

/// Runs the queue's worker until `shutdown`.
pub(super) async fn run(post: Post, shutdown: CancellationToken) {
    failpoint!("part-supervisor");
    let suspected = shutdown.run_until_cancelled(is_suspect(&post)).await;
    let slots = Slots::of(&post.station, suspected.unwrap_or_default());
    tokio::select! {
        () = follow(&post, &slots) => {}
        () = restart(&post, &slots, &shutdown) => {}
    }
}

/// Changes the number of slots as operators ask; never ends.
async fn follow(post: &Post, slots: &Slots) {
    let (queue, configured) = (post.station.queue, post.station.concurrency);
    let mut orders = post.orders.clone();
    loop {
        slots.resize(at_once(&orders.borrow_and_update(), queue, configured));
        if orders.changed().await.is_err() {
            return std::future::pending().await; // the process is about to end
        }
    }
}

/// Runs one worker after the other until `shutdown`.
async fn restart(post: &Post, slots: &Slots, shutdown: &CancellationToken) {
    while !shutdown.is_cancelled() {
        // Unique per start: jobs under the name of a living worker are never rescued.
        let name = format!("{}-{}", post.station.queue, Uuid::new_v4());
        let ended = run_once(post, &name, slots, shutdown).await;
        match timeout(LEAVE_WITHIN, leave(&post.db, &name)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                tracing::warn!(worker = name, %error, "could not put back fetched jobs; they will be rescued");
            }
            Err(_) => {
                tracing::warn!(
                    worker = name,
                    "could not put back fetched jobs in time; they will be rescued"
                );
            }
        }
        if let Err(error) = ended {
            tracing::warn!(worker = name, error = %chain(&error), "a worker ended; restarting it");
            pause_or_stop(RESTART_AFTER, shutdown).await;
        }
    }
}

/// Whether several workers of this queue and host died young: this process may die soon, too.
async fn is_suspect(post: &Post) -> bool {
    let queue = post.station.queue;
    let host = post.process.rsplit_once(':').map_or(post.process.as_str(), |(host, _)| host);
    let turn = post.turns.acquire().await;
    let died = answered(&post.db, queue::died_young(&post.db, queue, host, YOUNG)).await;
    drop(turn);
    let is_suspect = died.is_ok_and(|died| died >= SUSPECT_AFTER);
    if is_suspect {
        tracing::warn!(
            queue,
            "several processes of this host died within 30 s of their start: this one runs one job at \
             a time until it has lived for longer"
        );
    }
    is_suspect
}

/// Puts back jobs that were not started, and removes the worker from the list.
async fn leave(db: &PgPool, worker: &str) -> Result<(), sqlx::Error> {
    queue::release(db, worker).await?;
    queue::unregister(db, worker).await
}

/// Runs a worker until its database fails, or after `shutdown` until its running jobs have ended or
/// [`STOP_WITHIN`] has passed.
async fn run_once(
    post: &Post,
    name: &str,
    slots: &Slots,
    shutdown: &CancellationToken,
) -> Result<(), WorkerError> {
    let Post { station, db, process, .. } = post;
    let registered = async {
        let _turn = post.turns.acquire().await;
        answered(db, queue::register(db, name, station.queue, process)).await
    };
    match shutdown.run_until_cancelled(registered).await {
        Some(registered) => registered?,
        None => return Ok(()),
    }
    let (sender, jobs) = mpsc::channel(station.concurrency.max(1));
    let fetcher = Fetcher::new(post, name, slots.clone(), sender);
    let context = WorkerContext::new(name);
    let mut working = work(&context, Source { jobs }, post);
    let mut fetching = std::pin::pin!(fetcher.run(shutdown));
    let mut beating = post.heart.join(name);
    tokio::select! {
        dead = beating.until_dead() => return Err(dead),
        stopped = &mut fetching => stopped?,
        () = &mut working => return Err(WorkerError::Ended),
    }
    // Refused only if the worker has not started; then dropping it stops it.
    if context.stop().is_err() {
        return Ok(());
    }
    tokio::select! {
        dead = beating.until_dead() => Err(dead),
        ended = timeout(STOP_WITHIN, working) => {
            if ended.is_err() {
                tracing::error!(worker = name, "attempts still ran at the end; they will be rescued");
            }
            Ok(())
        }
    }
}

/// apalis's worker. Each job is a task of its own, so that jobs use every core, and a job that outlives
/// its worker still settles.
fn work(context: &WorkerContext, source: Source, post: &Post) -> BoxFuture<'static, ()> {
    let (handler, db) = (post.station.handler.clone(), post.db.clone());
    let name = context.name().to_owned();
    let running = WorkerBuilder::new(context)
        .backend(source)
        .build(move |Slotted { job, slot }: Slotted| {
            let place = Place::new(slot);
            let (working, db) = (handler(job, place.clone()), db.clone());
            let running = tokio::spawn(async move {
                within_bounds(&db, working).await;
                place.ended();
            });
            async move {
                if let Err(error) = running.await {
                    tracing::error!(%error, "a job's task ended without settling; it will be rescued");
                }
            }
        })
        .run()
        .boxed();
    async move {
        if let Err(error) = running.await {
            tracing::error!(worker = name, error = %chain(&error), "the worker's loop failed");
        }
    }
    .boxed()
}

/// Runs an attempt. One that lasts longer than every attempt may waits for an answer of the ledger on a
/// connection that is silent while others are not: the connections are then shut down.
async fn within_bounds(db: &PgPool, mut working: BoxFuture<'static, ()>) {
    if timeout(STUCK_AFTER, &mut working).await.is_err() {
        tracing::warn!("an attempt lasts too long; the connections to the database are renewed");
        hang_up(&db.connect_options());
        working.await;
    }
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
