//! GRASP: follows the relays that announcements of git repositories name.
//!
//! - `manager`: which followed relays this process holds. `session`: the life of one of them.
//! - `upkeep`: the recurring job. `release`, `scan`, `remove`: the jobs of a service.
//!
//! Connections, verification and the store are the mirror's.

mod manager;
mod release;
mod remove;
mod scan;
mod session;
mod upkeep;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tender_jobs::{
    grasp::{GRASP, work::Work},
    queue::Job,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    mirror,
    runtime::{Recurring, Schedule, Station, Wing, outcome},
};

/// The recurring job.
const RECONCILE: &str = "grasp-reconcile";
/// Every 15 seconds: a relay that nothing names is dropped within 60 to 120 s.
const RECONCILE_SCHEDULE: &str = "5,20,35,50 * * * * *";
/// The jobs that run at the same time.
const SLOTS: usize = 4;

/// See [`Context::walk_within`].
const WALK_WITHIN: Duration = Duration::from_mins(10);

/// What the handlers of this wing can reach.
#[derive(Debug, Clone)]
pub struct Context {
    /// The ledger.
    pub db: PgPool,
    /// The mirror's connections and store.
    pub mirror: mirror::Context,
    /// Where the process runs, for people.
    pub process: Arc<str>,
    /// Cancelled when the process stops.
    pub stopping: CancellationToken,
    /// Whether the recurring job runs by itself.
    pub has_schedule: bool,
    /// Whether there is a service, a relay or a parked event, as far as this process knows. Without one, the recurring
    /// job has nothing to do.
    used: Arc<watch::Sender<bool>>,
    /// The longest time for the history of one filter. What is proven by then is kept, and the rest is fetched
    /// later.
    pub walk_within: Duration,
    /// The longest wait for a frame of a comparison, after the first one.
    pub frame_within: Duration,
}

impl Context {
    /// Uses the connections of the mirror's context.
    pub fn new(mirror: &mirror::Context) -> Self {
        let has_schedule = mirror.settings.profile != mirror::Profile::Off;
        let (db, process) = (mirror.db.clone(), mirror.process.clone());
        let stopping = mirror.stopping.clone();
        Self {
            db,
            mirror: mirror.clone(),
            process,
            stopping,
            has_schedule,
            used: Arc::default(),
            walk_within: WALK_WITHIN,
            frame_within: mirror::negentropy::SILENCE,
        }
    }
}

/// The wing's station, recurring job and background work.
pub fn wing(context: &Context) -> Wing {
    let of_jobs = context.clone();
    let station = Station::new(GRASP, SLOTS, move |job| run(of_jobs.clone(), job));
    let wing = Wing::new("grasp").station(station).background(
        "the followed relays",
        &[GRASP],
        manager::run(context.clone()),
    );
    let schedule: Option<Schedule> = RECONCILE_SCHEDULE.parse().ok();
    let recurring = schedule.filter(|_| context.has_schedule);
    let recurring =
        recurring.map(|schedule| Recurring::new(RECONCILE, schedule, Work::Reconcile.job()));
    let recurring = recurring.map(|job| job.while_used(context.used.subscribe()));
    recurring.into_iter().fold(wing, Wing::recurring)
}

/// Runs a job of the wing's queue, and settles it.
pub async fn run(context: Context, job: Job) {
    let work = match Work::parse(&job.payload) {
        Ok(work) => work,
        Err(reason) => {
            outcome::kill_unreadable(&context.db, &job, &reason).await;
            return;
        }
    };
    match work {
        Work::Reconcile => {
            let work = Box::pin(upkeep::reconcile(&context));
            outcome::recurring(&context.db, &job, RECONCILE, work).await;
        }
        Work::Scan { service } => scan::run(&context, &job, service).await,
        Work::Release { service } => release::run(&context, &job, service).await,
        Work::RemoveService { service } => remove::run(&context, &job, service).await,
    }
}
