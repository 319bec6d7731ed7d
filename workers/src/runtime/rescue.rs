//! Rescue: every few seconds each process puts back the jobs of dead workers, and runs the wings' upkeep if it has
//! something to do.

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
async fn once(db: &PgPool, upkeep: &[Upkeep]) {
    let rescuing = queue::rescue(db, DEAD_AFTER, STUCK_AFTER);
    match within(&db.connect_options(), STUCK_AFTER, rescuing).await {
        Ok((rescued, is_upkeep_due)) => {
            tell(rescued);
            if is_upkeep_due {
                see_to(db, upkeep).await;
            }
        }
        Err(error) => {
            tracing::warn!(%error, "could not look for the jobs of dead workers");
            // What stops the rescue does not stop the wings.
            see_to(db, upkeep).await;
        }
    }
}

/// The round of a start: runs the wings' upkeep in any case.
pub(super) async fn first(db: &PgPool, upkeep: &[Upkeep]) {
    see_to(db, upkeep).await;
    once(db, &[]).await;
}

async fn see_to(db: &PgPool, upkeep: &[Upkeep]) {
    for step in upkeep {
        if let Err(error) = within(&db.connect_options(), STUCK_AFTER, step()).await {
            tracing::warn!(%error, "a step of the wings' upkeep failed; the next round tries again");
        }
    }
}

fn tell(rescued: queue::Rescued) {
    if rescued == queue::Rescued::default() {
        return;
    }
    counter!("tender_jobs_rescued_total").increment(rescued.requeued + rescued.superseded);
    tracing::warn!(
        requeued = rescued.requeued,
        superseded = rescued.superseded,
        refused = rescued.refused,
        "rescued the jobs of dead workers"
    );
}
