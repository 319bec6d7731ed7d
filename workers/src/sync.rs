//! Event sync: Nostr events kept in step with upstream relays.
//!
//! - `lane`: the frame of every job that holds a lane; `backfill`, `realtime`, `uploads`: what it does.
//! - [`orchestrate`]: which lanes have work; `upkeep`: recovery, purge, events that waited.
//! - `live`: standing subscriptions.
//! - `connections`, `connection`, `socket`, `message`: one websocket per upstream, shared.
//! - `page`, [`negentropy`], `fetch`, [`frame`]: how events are found and fetched.
//! - `intake`: the one path into the store; `upload`: the one path out.
//! - [`information`]: NIP-11. [`diff`]: what either side lacks, without a change.

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
mod socket;
mod upkeep;
mod upload;
mod uploads;

use nostr::key::Keys;
use tender_jobs::{
    queue::{self, Job, Settled, Work},
    upstream::settings::Settings,
};

pub use connections::Connections;
pub use intake::Tally;
pub(crate) use live::run as run_live;
pub use upkeep::recover_now;

use crate::{Context, settle};

/// When the recurring jobs of event sync run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Profile {
    /// Realtime every 5 min, uploads every 15, backfill each hour, full at 03:00.
    #[default]
    Production,
    /// Everything more often, and no full run.
    Development,
    /// None by themselves: for tests.
    Off,
}

/// What event sync goes by in this deployment.
#[derive(Debug, Clone, Default)]
pub struct SyncSettings {
    /// What upstreams do not set differently.
    pub settings: Settings,
    /// Who we are, where a relay asks (NIP-42).
    pub key: Option<Keys>,
    /// When its recurring jobs run.
    pub profile: Profile,
}

/// Runs a job of any of its queues, and settles it.
pub async fn run(context: Context, job: Job) {
    let work = match Work::parse(&job.payload) {
        Ok(work) => work,
        Err(reason) => return unreadable(&context, &job, &reason).await,
    };
    match work {
        Work::Lane { lane, .. } => lane::run(&context, &job, lane).await,
        Work::Orchestrate { mode, upstream, manual } => {
            let name = format!("{mode}-sync");
            let work = orchestrate::run(&context, mode, upstream, manual);
            settle::recurring_as(&context.db, &job, &name, Box::pin(work)).await;
        }
        Work::Recover => {
            let work = Box::pin(upkeep::recover(&context));
            settle::recurring_as(&context.db, &job, "sync-recovery", work).await;
        }
        Work::Purge => {
            settle::recurring_as(&context.db, &job, "purge-expired", upkeep::purge(&context)).await;
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

async fn unreadable(context: &Context, job: &Job, reason: &str) {
    tracing::error!(job.id, reason, "killed a job that nobody can do");
    let killed = settle::persist(job, || queue::kill(&context.db, job, reason)).await;
    if let Some(Settled::LeaseLost) = killed {
        settle::lease_lost(job);
    }
}
