//! Provisioning: how relays reach zooid.
//!
//! - [`sync_relay`]: the job that carries one relay. [`reconcile()`] and `resync` enqueue such jobs.
//! - [`zooid`]: the only room that speaks to zooid.
//! - `batch`: attempts that claim or settle at the same time share a statement.
//! - `stats`: counts the syncs of this process for charts. `known`: makes its zooid instances known.

mod batch;
mod known;
mod reassert;
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
        self, BreakerPolicy, QUEUES, REASSERT, RECONCILE, RESYNC, SYNC_RELAY, backoff::Backoff,
        instance::Instances,
    },
    queue::NewJob,
};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Listen, Recurring, Schedule, Station, Wing};
use batch::Batches;
pub use reconcile::reconcile;
use stats::Stats;
pub use sync_relay::OUTCOMES;
use zooid::Zooid;

/// How relays are provisioned.
#[derive(Debug, Clone)]
pub struct Settings {
    /// SyncRelay attempts at the same time in this process.
    pub concurrency: usize,
    /// When a failed attempt is retried.
    pub backoff: Backoff,
    /// Whether a relay that zooid has lost is created again. It keeps its identity if a release with
    /// derived identities created it; see `docs/adr/0015-derived-identities.md`.
    pub recreate_missing: bool,
    /// When reconcile runs.
    pub reconcile_schedule: Schedule,
    /// How long a relay that gave up for a transient reason waits for another round; zero: for ever.
    pub exhausted_after: Duration,
    /// How long a round of the background re-assertion takes, which sends every relay again; zero: never.
    pub reassert_within: Duration,
    /// When the breaker of a zooid instance opens.
    pub breaker: BreakerPolicy,
    /// The limit of calls to one zooid instance at the same time, over all processes.
    pub max_in_flight: u32,
    /// How long activity is kept.
    pub history: Duration,
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
    /// For the log of this process.
    outages: Arc<sync_relay::log::Outages>,
}

impl Context {
    /// Must be called within a Tokio runtime, because the batches run as tasks of their own.
    pub fn new(db: &PgPool, zooid: Arc<Zooid>, settings: Settings, listen: &Listen) -> Self {
        let instances = Arc::new(zooid.instances(settings.max_in_flight));
        let batches = Arc::new(Batches::start(db, instances.clone(), listen));
        let (settings, stats, outages) = (Arc::new(settings), Arc::default(), Arc::default());
        Self { db: db.clone(), zooid, instances, settings, batches, stats, outages }
    }
}

/// The wing's stations and recurring jobs.
pub fn wing(context: &Context, shutdown: &CancellationToken) -> Wing {
    let (settings, batches) = (&context.settings, context.batches.clone());
    let [sync, reconcile, resync, reassert] = [(); 4].map(|()| context.clone());
    let upkeep = context.db.clone();
    let round = settings.reassert_within;
    let run = NewJob::new(RECONCILE, &json!({ "v": 1 }));
    let recurring = Recurring::new(RECONCILE, settings.reconcile_schedule.clone(), run).at_start();
    let wing = Wing::new("provision")
        .station(Station::leaving(SYNC_RELAY, settings.concurrency, move |job, place| {
            sync_relay::run(sync.clone(), job, place)
        }))
        .station(Station::new(RECONCILE, 1, move |job| reconcile::run(reconcile.clone(), job)))
        .station(Station::new(RESYNC, 1, move |job| resync::run(resync.clone(), job)))
        .station(Station::new(REASSERT, 1, move |job| reassert::run(reassert.clone(), job, round)))
        .recurring(recurring)
        .background("the counts", &[SYNC_RELAY], stats::run(context.clone(), shutdown.clone()))
        .background("the batches", &[SYNC_RELAY], batch::watch(batches, shutdown.clone()))
        .background("the instances", &QUEUES, known::run(context.clone(), shutdown.clone()))
        .upkeep(move || release_waiting(upkeep.clone()));
    reasserting(settings).into_iter().fold(wing, Wing::recurring)
}

/// The recurring re-assertion, unless it is switched off.
fn reasserting(settings: &Settings) -> Option<Recurring> {
    let schedule: Schedule = reassert::SCHEDULE.parse().ok()?;
    let run = NewJob::new(REASSERT, &json!({ "v": 1 }));
    (!settings.reassert_within.is_zero()).then(|| Recurring::new(REASSERT, schedule, run))
}

/// Releases the jobs that waited for a breaker or a host.
async fn release_waiting(db: PgPool) -> Result<(), sqlx::Error> {
    provision::release_waiting(&db).await
}
