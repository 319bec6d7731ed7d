//! How each kind of job is done: one file per kind, and what they share.
//!
//! - [`sync_relay`], [`reconcile`], [`prune`]: the jobs.
//! - [`zooid`]: the only room that speaks to zooid.
//! - `settle`: an attempt's outcome, or its panic, to the ledger.
//! - `source`, `supervise`: apalis's worker over our queue, restarted when its database goes away.
//! - [`trace`]: traces across the queue.
//! - `batch`: attempts that claim or settle at once share a statement.
//! - [`sync`]: events kept in step with upstream relays.
//! - `hints`, `schedule`, `rescue`: wake-ups, ticks, and the jobs of the dead.
//! - `stats`: what this process's syncs came to, for the charts.
//!
//! [`run`] starts them all.

mod batch;
mod failpoint;
mod hints;
pub mod prune;
pub mod reconcile;
mod rescue;
mod resync;
mod schedule;
mod settle;
mod source;
mod stats;
mod supervise;
pub mod sync;
pub mod sync_relay;
pub mod trace;
pub mod zooid;

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures_util::FutureExt;
use sqlx::{PgPool, postgres::PgConnectOptions};
use tender_jobs::{
    backoff::Backoff,
    queue::{
        self, Job, Retention,
        instance::{self, BreakerPolicy, Instances},
    },
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use batch::Batches;
pub use rescue::{DEAD_AFTER, HEARTBEAT, STUCK_AFTER};
pub use schedule::{InvalidCron, Schedule};
use supervise::Station;
use sync::{Connections, SyncSettings};
use zooid::Zooid;

/// How long a stopping process waits for its running attempts.
pub const STOP_WITHIN: Duration = Duration::from_secs(25);

/// What the workers of a process need to know.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The queues to serve; see [`queue::QUEUES`].
    pub queues: Vec<String>,
    /// Attempts of `sync-relay` at the same time in this process.
    pub sync_concurrency: usize,
    /// When a failed sync is tried again.
    pub backoff: Backoff,
    /// Create a relay anew when zooid has lost it.
    pub recreate_missing: bool,
    /// When reconcile runs.
    pub reconcile_schedule: Schedule,
    /// How long a relay that gave up for a transient reason rests before one more round; zero: for
    /// ever.
    pub exhausted_after: Duration,
    /// How long finished jobs stay.
    pub retention: Retention,
    /// When a zooid instance counts as out.
    pub breaker: BreakerPolicy,
    /// Calls to one zooid instance at the same time, over all processes.
    pub max_in_flight: u32,
    /// Jobs of other queues than `sync-relay` at the same time; as many as is usual, if not named.
    pub concurrency: HashMap<String, usize>,
    /// How to hear of new jobs.
    pub listen: Listen,
    /// Where this process runs, for people.
    pub process: String,
    /// What event sync goes by.
    pub sync: SyncSettings,
}

/// How a process hears of new jobs sooner than by polling, which it does each second anyway.
#[derive(Debug, Clone, Default)]
pub enum Listen {
    /// On a connection of the pool's address.
    #[default]
    Pool,
    /// On a connection of its own: behind a pooler in transaction mode, `LISTEN` needs a session.
    At(Box<PgConnectOptions>),
    /// Not at all.
    Off,
}

impl Settings {
    fn concurrency_of(&self, queue: &str) -> usize {
        let usual = match queue {
            queue::SYNC => 10,
            queue::EVENTS | queue::UPLOADS => 4,
            _ => 1,
        };
        self.concurrency.get(queue).copied().unwrap_or(usual)
    }
}

/// What every job's handler can reach.
#[derive(Debug, Clone)]
pub struct Context {
    /// The ledger.
    pub db: PgPool,
    /// zooid's API.
    pub zooid: Arc<Zooid>,
    /// What the operator set.
    pub settings: Arc<Settings>,
    /// Which zooid instance serves which domain.
    pub instances: Arc<Instances>,
    /// Connections to upstreams.
    pub connections: Arc<Connections>,
    /// Cancelled when the process stops.
    pub stopping: CancellationToken,
    batches: Arc<Batches>,
    stats: Arc<stats::Stats>,
}

impl Context {
    /// Must be called within a runtime: what attempts share runs as tasks of their own.
    pub fn new(db: PgPool, zooid: Arc<Zooid>, settings: Settings) -> Self {
        let instances = Arc::new(zooid.instances(settings.max_in_flight));
        let batches = Arc::new(Batches::start(&db, instances.clone(), &settings.listen));
        let most = settings.sync.settings.max_concurrent_connections;
        Self {
            db,
            zooid,
            instances,
            batches,
            connections: Arc::new(Connections::new(most, settings.sync.key.clone())),
            settings: Arc::new(settings),
            stopping: CancellationToken::new(),
            stats: Arc::default(),
        }
    }
}

/// Runs workers, schedule and rescue until `shutdown`; then lets the running attempts finish within
/// [`STOP_WITHIN`] and gives back what was only fetched.
pub async fn run(context: Context, shutdown: CancellationToken) {
    let settings = context.settings.clone();
    let stopping = context.stopping.clone();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        stop.cancelled().await;
        stopping.cancel();
    });
    // Before any worker registers: what the last process left waits no longer than this one's start.
    rescue::once(&context.db).await;
    if let Err(error) = instance::register(&context.db, &context.instances.names()).await {
        tracing::warn!(%error, "could not make the zooid instances known; the first claim does");
    }
    let hints = hints::Hints::new(&settings.queues);
    let mut tasks = JoinSet::new();
    if let Some(db) = hints::connections(&context.db, &settings.listen) {
        tasks.spawn(hints.clone().listen(db, shutdown.clone()));
    }
    tasks.spawn(stats::run(context.clone(), shutdown.clone()));
    tasks.spawn(rescue::run(context.db.clone(), shutdown.clone()));
    tasks.spawn(schedule::run(context.clone(), shutdown.clone()));
    if settings.queues.iter().any(|queue| queue == queue::SYNC) {
        tasks.spawn(sync::run_live(context.clone(), shutdown.clone()));
    }
    let (connections, db) = (context.connections.clone(), context.db.clone());
    let (process, stop) = (settings.process.clone(), shutdown.clone());
    tasks.spawn(async move { connections.tell(db, process, stop).await });
    for queue in &settings.queues {
        if let Some(station) = station(queue, &context) {
            let hint = hints.of(queue);
            let process = settings.process.clone();
            tasks.spawn(supervise::run(
                station,
                context.db.clone(),
                process,
                hint,
                shutdown.clone(),
            ));
        }
    }
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a part of the workers panicked");
        }
    }
}

/// The one list of what serves which queue.
fn station(queue: &str, context: &Context) -> Option<Station> {
    let context = context.clone();
    Some(match queue {
        queue::SYNC_RELAY => Station {
            queue: queue::SYNC_RELAY,
            concurrency: context.settings.sync_concurrency,
            poll: Duration::from_secs(1),
            handler: Arc::new(move |job: Job| sync_relay::run(context.clone(), job).boxed()),
        },
        queue::RECONCILE => Station {
            queue: queue::RECONCILE,
            concurrency: context.settings.concurrency_of(queue::RECONCILE),
            poll: Duration::from_secs(5),
            handler: Arc::new(move |job: Job| reconcile::run(context.clone(), job).boxed()),
        },
        queue::PRUNE => Station {
            queue: queue::PRUNE,
            concurrency: context.settings.concurrency_of(queue::PRUNE),
            poll: Duration::from_secs(5),
            handler: Arc::new(move |job: Job| prune::run(context.clone(), job).boxed()),
        },
        queue::RESYNC => Station {
            queue: queue::RESYNC,
            concurrency: context.settings.concurrency_of(queue::RESYNC),
            poll: Duration::from_secs(1),
            handler: Arc::new(move |job: Job| resync::run(context.clone(), job).boxed()),
        },
        queue::SYNC => sync_station(queue::SYNC, context),
        queue::EVENTS => sync_station(queue::EVENTS, context),
        queue::UPLOADS => sync_station(queue::UPLOADS, context),
        queue::DELETIONS => sync_station(queue::DELETIONS, context),
        _ => return None,
    })
}

/// What serves a queue of event sync: its jobs say themselves what they are. Hints wake it; it looks by
/// itself rarely, since nothing of it is lost in seconds.
fn sync_station(queue: &'static str, context: Context) -> Station {
    Station {
        queue,
        concurrency: context.settings.concurrency_of(queue),
        poll: Duration::from_secs(5),
        handler: Arc::new(move |job: Job| sync::run(context.clone(), job).boxed()),
    }
}
