//! Rescue: every few seconds each process brings back the jobs of workers that died, and releases
//! what a breaker holds that is closed.

use std::time::Duration;

use metrics::counter;
use sqlx::PgPool;
use tender_jobs::queue;
use tokio_util::sync::CancellationToken;

/// Time between two heartbeats of a worker, and between two rescues of a process.
pub const HEARTBEAT: Duration = Duration::from_secs(5);
/// A worker not seen for this long (six heartbeats) is dead.
pub const DEAD_AFTER: Duration = Duration::from_secs(30);
/// A job held for this long was lost by a worker that lives; every attempt ends within 25 s.
pub const STUCK_AFTER: Duration = Duration::from_mins(2);

pub(crate) async fn run(db: PgPool, shutdown: CancellationToken) {
    while tokio::time::timeout(HEARTBEAT, shutdown.cancelled()).await.is_err() {
        once(&db).await;
    }
}

/// One round. A database that does not answer is the next round's business.
pub(crate) async fn once(db: &PgPool) {
    if let Err(error) = queue::release_held(db).await {
        tracing::warn!(%error, "could not look for jobs that a closed breaker holds");
    }
    match queue::rescue(db, DEAD_AFTER, STUCK_AFTER).await {
        Ok(rescued) if rescued == queue::Rescued::default() => {}
        Ok(rescued) => {
            counter!("tender_jobs_rescued_total").increment(rescued.requeued + rescued.superseded);
            tracing::warn!(
                requeued = rescued.requeued,
                superseded = rescued.superseded,
                "brought back the jobs of dead workers"
            );
        }
        Err(error) => tracing::warn!(%error, "could not look for the jobs of dead workers"),
    }
}
