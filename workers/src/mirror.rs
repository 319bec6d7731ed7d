//! Mirroring: Nostr events kept in step with upstream relays.
//!
//! - `lane`: the frame of every job that holds a lane; `backfill`, `realtime`, `uploads`: its work.
//! - [`orchestrate`]: which lanes have work; `upkeep`: recovery, purge, events that waited.
//! - `live`: standing subscriptions.
//! - `connections`, `connection`, `socket`, `message`: one websocket per upstream, shared.
//! - `address`: which hosts a connection may lead to.
//! - `page`, [`negentropy`], `fetch`, [`frame`]: how events are found and fetched.
//! - `intake`: the one path into the store; `upload`: the one path out.
//! - [`information`]: NIP-11. [`diff`]: compares two sides without changing either.

mod address;
mod backfill;
mod connection;
mod connections;
pub mod diff;
pub mod error;
mod fetch;
pub mod frame;
pub mod information;
mod intake;
mod lane;
mod live;
mod message;
pub mod negentropy;
pub mod orchestrate;
mod page;
mod realtime;
mod schedule;
mod socket;
mod upkeep;
mod upload;
mod uploads;

use std::sync::Arc;

use nostr::key::Keys;
use rustls::pki_types::CertificateDer;
use sqlx::PgPool;
use tender_jobs::{
    mirror::{self, DELETIONS, EVENTS, MIRROR, UPLOADS, upstream::settings, work::Work},
    queue::Job,
};
use tokio_util::sync::CancellationToken;

use crate::runtime::{Station, Wing, outcome};
pub use connections::Connections;
pub use schedule::Profile;
pub use upkeep::recover_now;

/// How events are mirrored in this deployment.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    /// The settings of upstreams that do not override them.
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
    /// Where the process runs, for people.
    pub process: Arc<str>,
    /// Cancelled when the process stops.
    pub stopping: CancellationToken,
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
        Self { db: db.clone(), connections, settings, process, stopping: stopping.clone() }
    }
}

/// The wing's stations and recurring jobs.
pub fn wing(context: &Context) -> Wing {
    let station = |queue, concurrency| {
        let context = context.clone();
        Station::new(queue, concurrency, move |job| run(context.clone(), job))
    };
    let wing = Wing::new("mirror")
        .station(station(MIRROR, 10))
        .station(station(EVENTS, 4))
        .station(station(UPLOADS, 4))
        .station(station(DELETIONS, 1))
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
        Work::Lane { lane, .. } => lane::run(&context, &job, lane).await,
        Work::Orchestrate { mode, upstream, manual } => {
            let work = Box::pin(orchestrate::run(&context, mode, upstream, manual));
            outcome::recurring(&context.db, &job, schedule::name_of(mode), work).await;
        }
        Work::Recover => {
            let work = Box::pin(upkeep::recover(&context));
            outcome::recurring(&context.db, &job, schedule::RECOVERY, work).await;
        }
        Work::Purge => {
            outcome::recurring(&context.db, &job, schedule::PURGE, upkeep::purge(&context)).await;
        }
        Work::ProcessEvents { upstream, events } => {
            upkeep::process_events(&context, &job, upstream, &events).await;
        }
        Work::ProcessDeletion { event } => upkeep::process_deletion(&context, &job, &event).await,
        Work::UploadEvents { upstream, events } => {
            Box::pin(uploads::upload_events(&context, &job, upstream, &events)).await;
        }
    }
}
