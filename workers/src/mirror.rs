//! Mirroring: Nostr events kept in step with upstream relays.
//!
//! - `lane`: the frame of every job that holds a lane; `backfill`, `realtime`, `uploads`: its work.
//! - [`orchestrate`]: which lanes have work; `upkeep`: recovery, purge, events that waited.
//! - `live`: standing subscriptions. `remove`: the end of an upstream.
//! - `connections`, `connection`, `socket`, `message`: one websocket per upstream, shared.
//! - `address`: which hosts a connection may lead to.
//! - `page`, [`negentropy`], `fetch`, [`frame`]: how events are found and fetched; `proof`: whether a
//!   reconciliation showed the whole set.
//! - `report`: the account of a job, and whether it made progress.
//! - `intake`: the one path into the store; `upload`: the one path out.
//! - [`information`]: NIP-11. [`diff`]: compares two sides without changing either.

mod address;
pub(crate) mod backfill;
pub(crate) mod connection;
pub(crate) mod connections;
pub mod diff;
pub mod error;
pub(crate) mod fetch;
pub mod frame;
pub mod information;
pub(crate) mod intake;
mod lane;
mod live;
mod message;
pub mod negentropy;
pub mod orchestrate;
pub(crate) mod page;
pub(crate) mod proof;
mod realtime;
mod remove;
mod report;
mod schedule;
mod shares;
mod socket;
mod upkeep;
mod upload;
mod uploads;

use std::{collections::HashMap, sync::Arc};

use nostr::key::Keys;
use rustls::pki_types::CertificateDer;
use sqlx::PgPool;
use tender_jobs::{
    mirror::{
        self, DELETIONS, EVENTS, MIRROR, UPLOADS, deployment,
        event::Gate,
        upstream::{Upstream, settings},
        work::Work,
    },
    queue::Job,
};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Station, Wing, outcome};
pub use connections::Connections;
use shares::Shares;
pub use tender_jobs::mirror::deployment::Profile;
pub use upkeep::recover_now;

/// How this process mirrors events.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The deployment's settings when the process started. Only the limits of the process are taken
    /// from here; every job reads the others from the database ([`Context::settings_of`]).
    pub defaults: settings::Settings,
    /// The key that answers an upstream's NIP-42 challenge.
    pub key: Option<Keys>,
    /// When the recurring jobs run.
    pub profile: Profile,
    /// Whether every upstream may have an address that is not public.
    pub allow_private: bool,
    /// Certificate authorities that are trusted besides those of the web.
    pub authorities: Vec<CertificateDer<'static>>,
}

/// What the handlers of this wing can reach.
#[derive(Debug, Clone)]
pub struct Context {
    /// The ledger.
    pub db: PgPool,
    /// The connections to upstreams.
    pub connections: Arc<Connections>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// The slots that each upstream occupies.
    shares: Shares,
    /// Where the process runs, for people.
    pub process: Arc<str>,
    /// Cancelled when the process stops.
    pub stopping: CancellationToken,
    /// Decides which events of an upstream with admission are stored.
    admission: Option<Arc<dyn Gate>>,
}

impl Context {
    /// A context without open connections.
    pub fn new(
        db: &PgPool,
        settings: Settings,
        process: &str,
        stopping: &CancellationToken,
    ) -> Self {
        let connections = Arc::new(Connections::new(&settings));
        let (settings, process) = (Arc::new(settings), Arc::from(process));
        let shares = Shares::new(slots());
        let (db, stopping) = (db.clone(), stopping.clone());
        Self { db, connections, settings, shares, process, stopping, admission: None }
    }

    /// Lets a gate decide which events of upstreams with admission are stored.
    #[must_use]
    pub fn with_admission(mut self, gate: Arc<dyn Gate>) -> Self {
        self.admission = Some(gate);
        self
    }

    /// Returns the gate of an upstream; `None` if every event that it sends may be stored.
    pub(crate) fn gate_of(&self, upstream: &Upstream) -> Option<Arc<dyn Gate>> {
        self.admission.clone().filter(|_| upstream.admission)
    }

    /// Changes how many jobs run at the same time, by queue.
    #[must_use]
    pub fn with_slots(mut self, changed: &HashMap<String, usize>) -> Self {
        let mut slots = slots();
        slots.extend(changed.clone());
        self.shares = Shares::new(slots);
        self
    }

    /// Reads the settings of an upstream: its overrides of the deployment's settings. Connections that are opened
    /// from now on follow the deployment's settings as they were read.
    ///
    /// # Errors
    /// The database is unreachable.
    pub async fn settings_of(
        &self,
        upstream: &Upstream,
    ) -> Result<settings::Settings, sqlx::Error> {
        let deployment = deployment::settings(&self.db).await?;
        self.connections.learn(deployment.clone());
        Ok(upstream.settings(&deployment))
    }
}

/// The jobs that each queue runs at the same time.
const SLOTS: [(&str, usize); 4] = [(MIRROR, 10), (EVENTS, 4), (UPLOADS, 4), (DELETIONS, 1)];

fn slots() -> HashMap<String, usize> {
    SLOTS.into_iter().map(|(queue, slots)| (queue.to_owned(), slots)).collect()
}

/// The wing's stations and recurring jobs.
pub fn wing(context: &Context) -> Wing {
    let station = |queue, concurrency| {
        let context = context.clone();
        Station::new(queue, concurrency, move |job| run(context.clone(), job))
    };
    let stations = SLOTS.into_iter().map(|(queue, slots)| station(queue, slots));
    let wing = stations
        .fold(Wing::new("mirror"), Wing::station)
        .background("the standing subscriptions", &[MIRROR], live::run(context.clone()))
        .background("the connections", &mirror::QUEUES, connections::tell(context.clone()));
    schedule::recurring(context.settings.profile).into_iter().fold(wing, Wing::recurring)
}

/// Runs a job of any of the wing's queues, and settles it.
pub async fn run(context: Context, job: Job) {
    let work = match Work::parse(&job.payload) {
        Ok(work) => work,
        Err(reason) => {
            outcome::kill_unreadable(&context.db, &job, &reason).await;
            return;
        }
    };
    match work {
        Work::Lane { lane, .. } => Box::pin(lane::run(&context, &job, lane)).await,
        Work::Orchestrate { mode, upstream, manual } => {
            let work = Box::pin(orchestrate::run(&context, mode, upstream, manual));
            match schedule::name_of(mode) {
                Some(name) => outcome::recurring(&context.db, &job, name, work).await,
                None => {
                    outcome::kill_unreadable(&context.db, &job, "a live lane has no runs").await;
                }
            }
        }
        Work::Recover => {
            let work = Box::pin(upkeep::recover(&context));
            outcome::recurring(&context.db, &job, schedule::RECOVERY, work).await;
        }
        Work::Purge => {
            outcome::recurring(&context.db, &job, schedule::PURGE, upkeep::purge(&context)).await;
        }
        Work::ProcessEvents { upstream, lane, events } => {
            if let Some(_share) = context.share(&job, upstream).await {
                upkeep::process_events(&context, &job, upstream, lane, &events).await;
            }
        }
        Work::RemoveUpstream { upstream } => {
            Box::pin(remove::run(&context, &job, upstream)).await;
        }
        Work::ProcessDeletion { event } => upkeep::process_deletion(&context, &job, &event).await,
        Work::UploadEvents { upstream, events } => {
            Box::pin(uploads::upload_events(&context, &job, upstream, &events)).await;
        }
    }
}
