//! How each kind of job is done.
//!
//! - [`runtime`]: runs the jobs of any wing.
//! - [`provision`]: carries relays to zooid. [`mirror`]: keeps events in step with other relays.
//!   [`grasp`]: follows the relays that announcements of git repositories name.
//! - [`upkeep`]: deletes what no wing needs any more. [`metrics`]: the counters of workers.
//!
//! This file is the wiring: it collects the wings that a process is configured for.

pub mod grasp;
pub mod metrics;
pub mod mirror;
pub mod provision;
pub mod runtime;
pub mod upkeep;

use std::{sync::Arc, time::Duration};

use sqlx::PgPool;
use tender_jobs::{grasp::admission::OwnFeed, queue::Retention};
use tokio_util::sync::CancellationToken;

use provision::zooid::Zooid;
use runtime::Wing;

/// The wings of a process. A wing that is `None` does not run.
#[derive(Debug, Clone)]
pub struct Wings {
    /// zooid's client, and how relays are provisioned.
    pub provision: Option<(Arc<Zooid>, provision::Settings)>,
    /// How events are mirrored. The GRASP wing runs with the mirror, whose connections it uses.
    pub mirror: Option<mirror::Settings>,
    /// How long finished jobs are kept.
    pub retention: Retention,
    /// How long the actions of operators are kept.
    pub history: Duration,
}

/// Runs the wings until `shutdown`; see [`runtime::run`].
///
/// # Errors
/// A part of the process ended too early.
pub async fn run(
    db: &PgPool,
    settings: runtime::Settings,
    wings: Wings,
    shutdown: CancellationToken,
) -> Result<(), runtime::PartEnded> {
    let mut running: Vec<Wing> = vec![upkeep::wing(db, wings.retention, wings.history)];
    if let Some((zooid, rules)) = wings.provision {
        let context = provision::Context::new(db, zooid, rules, &settings.listen);
        running.push(provision::wing(&context, &shutdown));
    }
    if let Some(rules) = wings.mirror {
        let context = mirror::Context::new(db, rules, &settings.process, &shutdown)
            .with_slots(&settings.concurrency)
            .with_admission(Arc::new(OwnFeed));
        running.push(mirror::wing(&context));
        running.push(grasp::wing(&grasp::Context::new(&context)));
    }
    runtime::run(db, settings, running, shutdown).await
}
