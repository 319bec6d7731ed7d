//! Rescue: every few seconds each process puts back the jobs of dead workers and runs the wings' upkeep.

use std::time::Duration;

use metrics::counter;
use sqlx::PgPool;
use tender_jobs::{
    database::within,
    queue::{self, DEAD_AFTER},
};
use tokio_util::sync::CancellationToken;

use super::{Upkeep, failpoint, pause_or_stop};

/// The time between two heartbeats of a worker, and between two rescues of a process.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// A job held for this long was lost by a living worker: every attempt ends sooner.
pub const STUCK_AFTER: Duration = Duration::from_mins(2);

pub(super) async fn run(db: PgPool, upkeep: Vec<Upkeep>, shutdown: CancellationToken) {
    failpoint!("part-rescue");
    while !pause_or_stop(HEARTBEAT, &shutdown).await {
        shutdown.run_until_cancelled(Box::pin(once(&db, &upkeep))).await;
    }
}

/// One round. If the database is unreachable, the next round does the work.
pub(super) async fn once(db: &PgPool, upkeep: &[Upkeep]) {
    let server = db.connect_options();
    for step in upkeep {
        if let Err(error) = within(&server, STUCK_AFTER, step()).await {
            tracing::warn!(%error, "a step of the wings' upkeep failed; the next round tries again");
        }
    }
    match within(&server, STUCK_AFTER, queue::rescue(db, DEAD_AFTER, STUCK_AFTER)).await {
        Ok(rescued) if rescued == queue::Rescued::default() => {}
        Ok(rescued) => {
            counter!("tender_jobs_rescued_total").increment(rescued.requeued + rescued.superseded);
            tracing::warn!(
                requeued = rescued.requeued,
                superseded = rescued.superseded,
                refused = rescued.refused,
                "rescued the jobs of dead workers"
            );
        }
        Err(error) => tracing::warn!(%error, "could not look for the jobs of dead workers"),
    }
}
