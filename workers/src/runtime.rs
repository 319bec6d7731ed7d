//! The runtime: runs the stations and recurring jobs of wings. It knows no wing.
//!
//! A [`Wing`] has [`Station`]s (a queue, how many jobs at the same time, a handler), [`Recurring`] jobs,
//! and tasks of its own. [`run`] fetches due jobs for each station, enqueues the runs of recurring
//! jobs, puts back the jobs of dead workers, and stops in order. Every process may run the same wings
//! on one database: jobs are fetched once, and each run of a recurring job is enqueued once.
//!
//! A handler receives a fetched [`Job`](tender_jobs::queue::Job) and settles it in the ledger itself. [`outcome::attempt`] does so
//! for handlers that have nothing else to write. A job that no handler settles, because its process
//! died, is rescued after 30 s: everything a handler does may therefore happen twice.
//!
//! ```no_run
//! use serde_json::json;
//! use tender_jobs::queue::{self, NewJob};
//! use tender_workers::runtime::{self, Outcome, Recurring, Settings, Station, Wing, outcome};
//! use tokio_util::sync::CancellationToken;
//!
//! # async fn example(db: sqlx::PgPool) -> Result<(), Box<dyn std::error::Error>> {
//! let ledger = db.clone();
//! let greet = Station::new("greet", 4, move |job| {
//!     let ledger = ledger.clone();
//!     async move {
//!         outcome::attempt(&ledger, &job, async { Outcome::Done(json!("hello")) }).await;
//!     }
//! });
//! let daily = Recurring::new("greet-daily", "0 0 9 * * *".parse()?, NewJob::new("greet", &json!({})));
//! let wing = Wing::new("greetings").station(greet).recurring(daily);
//!
//! queue::enqueue(&db, &[NewJob::new("greet", &json!({ "v": 1 }))]).await?;
//! runtime::run(&db, Settings::default(), vec![wing], CancellationToken::new()).await?;
//! # Ok(())
//! # }
//! ```

mod alarms;
mod failpoint;
mod fetch;
mod heart;
mod hints;
pub(crate) mod manners;
mod orders;
pub mod outcome;
pub(crate) mod pages;
mod parts;
mod poller;
mod rescue;
mod schedule;
mod slots;
mod source;
mod station;
mod supervise;
pub mod trace;
mod trouble;

use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use futures_util::{FutureExt, future::BoxFuture};
use sqlx::{PgPool, postgres::PgConnectOptions};
use tender_jobs::queue::process::Orders;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

pub(crate) use failpoint::failpoint;
pub use heart::Vitals;
use orders::Reporter;
pub use outcome::{OUTCOMES, Outcome};
pub use parts::PartEnded;
use parts::Parts;
pub use rescue::{HEARTBEAT, STUCK_AFTER};
pub use schedule::{InvalidCron, Recurring, Schedule};
pub use slots::Place;
pub use station::Station;
pub(crate) use trouble::{Trouble, Troubles};

/// How long a stopping process waits for its running attempts. A stopping process ends within 25 s; the
/// rest of that time is for giving back jobs and for closing connections.
pub const STOP_WITHIN: Duration = Duration::from_secs(22);

/// How the runtime of a process is set.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The queues to serve; `None`: every queue of the wings.
    pub queues: Option<Vec<String>>,
    /// Jobs at the same time by queue, where the wing's own number is not wanted.
    pub concurrency: HashMap<String, usize>,
    /// How the process is notified of new jobs.
    pub listen: Listen,
    /// Where the process runs, for people: version, host and process id.
    pub process: String,
    /// Where the workers record their heartbeats.
    pub vitals: Vitals,
}

/// How a process is notified of new jobs. Without a notification it finds them when it polls.
#[derive(Debug, Clone, Default)]
pub enum Listen {
    /// On a connection of the pool.
    #[default]
    Pool,
    /// On a connection to this address: `LISTEN` needs a session, which a pooler in transaction mode
    /// does not give.
    At(Box<PgConnectOptions>),
    /// Not at all.
    Off,
}

/// A task that runs beside the stations until the process stops.
struct Background {
    name: &'static str,
    queues: &'static [&'static str],
    task: BoxFuture<'static, ()>,
}

type Upkeep = Arc<dyn Fn() -> BoxFuture<'static, Result<(), sqlx::Error>> + Send + Sync>;

/// What the runtime runs for one wing.
pub struct Wing {
    name: &'static str,
    stations: Vec<Station>,
    recurring: Vec<Recurring>,
    background: Vec<Background>,
    upkeep: Vec<Upkeep>,
}

impl Wing {
    /// A wing that does nothing yet. The name is unique among the wings of a deployment.
    pub fn new(name: &'static str) -> Self {
        let (stations, recurring, background, upkeep) = Default::default();
        Self { name, stations, recurring, background, upkeep }
    }

    /// Adds a queue to serve.
    #[must_use]
    pub fn station(mut self, station: Station) -> Self {
        self.stations.push(station);
        self
    }

    /// Adds a recurring job.
    #[must_use]
    pub fn recurring(mut self, recurring: Recurring) -> Self {
        self.recurring.push(recurring);
        self
    }

    /// Adds a task that runs while this process serves one of `queues`. It must end when the process
    /// stops. If it ends or panics sooner, the process stops; the name tells people which it was.
    #[must_use]
    pub fn background(
        mut self,
        name: &'static str,
        queues: &'static [&'static str],
        task: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        self.background.push(Background { name, queues, task: task.boxed() });
        self
    }

    /// Adds a step that runs at the start, before any worker registers, and then every 5 s with the
    /// rescue while the schema's function `upkeep_is_due` returns true. A failure is logged; the next round
    /// tries again.
    #[must_use]
    pub fn upkeep<Run, Running>(mut self, step: Run) -> Self
    where
        Run: Fn() -> Running + Send + Sync + 'static,
        Running: Future<Output = Result<(), sqlx::Error>> + Send + 'static,
    {
        self.upkeep.push(Arc::new(move || step().boxed()));
        self
    }
}

/// Runs the wings until `shutdown`. Then waits up to [`STOP_WITHIN`] for running attempts and puts back
/// jobs that were fetched and not started.
///
/// # Errors
/// A part ended or panicked before `shutdown`; `shutdown` is then cancelled, so that nothing goes on half
/// dead.
pub async fn run(
    db: &PgPool,
    settings: Settings,
    wings: Vec<Wing>,
    shutdown: CancellationToken,
) -> Result<(), PartEnded> {
    let upkeep: Vec<Upkeep> = wings.iter().flat_map(|wing| wing.upkeep.clone()).collect();
    // Before any worker registers: jobs that a dead process left are due at once.
    shutdown.run_until_cancelled(Box::pin(rescue::first(db, &upkeep))).await;
    let mut parts = Parts::default();
    parts.spawn("the rescue", rescue::run(db.clone(), upkeep, shutdown.clone()));
    let mut stations = Vec::new();
    let mut schedules = Vec::new();
    let mut names = Vec::new();
    for wing in wings {
        let served: Vec<Station> =
            wing.stations.into_iter().filter_map(|station| settings.serve(station)).collect();
        let has = |queue: &&str| served.iter().any(|station| station.queue == *queue);
        for background in wing.background {
            if background.queues.iter().any(has) {
                parts.spawn(format!("{}: {}", wing.name, background.name), background.task);
            }
        }
        if !served.is_empty() {
            names.push(wing.name.to_owned());
        }
        stations.extend(served);
        schedules.push((wing.name, wing.recurring));
    }
    parts.spawn("the schedule", schedule::run(db.clone(), schedules, shutdown.clone()));
    let (mut reporter, orders) = Reporter::new(db, &settings.process, names, &stations);
    reporter.first(&shutdown).await;
    let heart = heart::Heart::new(db, &settings.vitals);
    parts.spawn("the heartbeats", heart.clone().run(reporter, shutdown.clone()));
    run_stations(&mut parts, db, &settings, stations, (&heart, &orders), &shutdown);
    parts.join(&shutdown).await
}

fn run_stations(
    parts: &mut Parts,
    db: &PgPool,
    settings: &Settings,
    stations: Vec<Station>,
    (heart, orders): (&Arc<heart::Heart>, &watch::Receiver<Orders>),
    shutdown: &CancellationToken,
) {
    let hints = hints::Hints::new(stations.iter().map(|station| station.queue));
    if let Some(listening) = hints::connections(db, &settings.listen) {
        parts.spawn("the notifications", hints.clone().listen(listening, shutdown.clone()));
    }
    parts.spawn("the polls", poller::Poller::new(db, &hints).run(shutdown.clone()));
    let turns = Arc::new(Semaphore::new(supervise::REGISTERING));
    for station in stations {
        let name = format!("the supervisor of {}", station.queue);
        let post = supervise::Post {
            db: db.clone(),
            process: settings.process.clone(),
            hints: hints.clone(),
            orders: orders.clone(),
            heart: heart.clone(),
            turns: turns.clone(),
            station,
        };
        parts.spawn(name, supervise::run(post, shutdown.clone()));
    }
}

impl Settings {
    /// The station as this process serves it, if it does.
    fn serve(&self, mut station: Station) -> Option<Station> {
        let is_named = |queues: &Vec<String>| queues.iter().any(|queue| queue == station.queue);
        if !self.queues.as_ref().is_none_or(is_named) {
            return None;
        }
        if let Some(concurrency) = self.concurrency.get(station.queue) {
            station.concurrency = *concurrency;
        }
        Some(station)
    }
}

/// Waits for `duration`. This is the only sleep: a job's own waits belong in its row (`requeue`), and
/// this is for pauses of milliseconds within an attempt and between attempts to reach a peer.
#[expect(clippy::disallowed_methods, reason = "the one place that sleeps")]
pub async fn pause(duration: Duration) {
    tokio::time::sleep(duration).await;
}

/// Waits for `duration`, or until `stop`. Returns whether it stopped.
pub(crate) async fn pause_or_stop(duration: Duration, stop: &CancellationToken) -> bool {
    stop.run_until_cancelled(pause(duration)).await.is_none()
}
