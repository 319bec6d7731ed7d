//! Provisioning: how relays reach zooid.
//!
//! - [`sync_relay`]: the job that carries one relay. [`reconcile()`] and `resync` enqueue such jobs.
//! - [`zooid`]: the only room that speaks to zooid.
//! - `batch`: attempts that claim or settle at the same time share a statement.
//! - `stats`: counts the syncs of this process for charts.

mod batch;
mod reconcile;
mod resync;
mod stats;
pub mod sync_relay;
pub mod zooid;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use sqlx::PgPool;
use tender_jobs::{
    provision::{
        self, BreakerPolicy, RECONCILE, RESYNC, SYNC_RELAY,
        backoff::Backoff,
        instance::{self, Instances},
    },
    queue::NewJob,
};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Listen, Recurring, Schedule, Station, Wing};
use batch::Batches;
pub use reconcile::reconcile;
use stats::Stats;
use zooid::Zooid;

/// How relays are provisioned.
#[derive(Debug, Clone)]
pub struct Settings {
    /// SyncRelay attempts at the same time in this process.
    pub concurrency: usize,
    /// When a failed attempt is retried.
    pub backoff: Backoff,
    /// Whether a relay that zooid has lost is created again, with a new identity.
    pub recreate_missing: bool,
    /// When reconcile runs.
    pub reconcile_schedule: Schedule,
    /// How long a relay that gave up for a transient reason waits for another round; zero: for ever.
    pub exhausted_after: Duration,
    /// When the breaker of a zooid instance opens.
    pub breaker: BreakerPolicy,
    /// The limit of calls to one zooid instance at the same time, over all processes.
    pub max_in_flight: u32,
    /// How long activity is kept.
    pub history: Duration,
    /// How often SyncRelay and resync jobs are looked for without a notification. An idle worker sends
    /// its heartbeats between two looks, so this is below the 30 s after which it counts as dead.
    pub poll: Duration,
}

/// What the handlers of this wing can reach.
#[derive(Debug, Clone)]
pub struct Context {
    /// The ledger.
    pub db: PgPool,
    /// zooid's API.
    pub zooid: Arc<Zooid>,
    /// Which zooid instance serves which domain.
    pub instances: Arc<Instances>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    batches: Arc<Batches>,
    stats: Arc<Stats>,
}

impl Context {
    /// Must be called within a Tokio runtime, because the batches run as tasks of their own.
    pub fn new(db: &PgPool, zooid: Arc<Zooid>, settings: Settings, listen: &Listen) -> Self {
        let instances = Arc::new(zooid.instances(settings.max_in_flight));
        let batches = Arc::new(Batches::start(db, instances.clone(), listen));
        let (settings, stats) = (Arc::new(settings), Arc::default());
        Self { db: db.clone(), zooid, instances, settings, batches, stats }
    }
}

/// The wing's stations and recurring jobs.
pub fn wing(context: &Context, shutdown: &CancellationToken) -> Wing {
    let settings = &context.settings;
    let [sync, reconcile, resync, upkeep] = [(); 4].map(|()| context.clone());
    let run = NewJob::new(RECONCILE, &json!({ "v": 1 }));
    let recurring = Recurring::new(RECONCILE, settings.reconcile_schedule.clone(), run).at_start();
    Wing::new("provision")
        .station(
            Station::new(SYNC_RELAY, settings.concurrency, move |job| {
                sync_relay::run(sync.clone(), job)
            })
            .poll(settings.poll),
        )
        .station(Station::new(RECONCILE, 1, move |job| reconcile::run(reconcile.clone(), job)))
        .station(
            Station::new(RESYNC, 1, move |job| resync::run(resync.clone(), job))
                .poll(settings.poll),
        )
        .recurring(recurring)
        .background(&[SYNC_RELAY], stats::run(context.clone(), shutdown.clone()))
        .upkeep(move || see_to_instances(upkeep.clone()))
}

/// Makes the instances known, and releases the jobs of breakers that have closed.
async fn see_to_instances(context: Context) -> Result<(), sqlx::Error> {
    instance::register(&context.db, &context.instances.names()).await?;
    provision::release_held(&context.db).await?;
    Ok(())
}
