//! Heartbeats: a task of its own per worker, so that a worker whose slots are busy stays alive.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{self, DEAD_AFTER},
};

use super::{HEARTBEAT, Trouble, pause};

/// Why a worker ends and is restarted under a new name.
#[derive(Debug, thiserror::Error)]
pub(super) enum WorkerError {
    #[error("the database failed")]
    Database(#[from] sqlx::Error),
    #[error("the worker counts as dead: it sent no heartbeat for {} s", DEAD_AFTER.as_secs())]
    Dead,
    #[error("the worker's loop ended")]
    Ended,
}

/// When a worker of this process last sent a heartbeat. Cheap to clone; the clones share it.
#[derive(Debug, Clone)]
pub struct Vitals {
    since: Instant,
    /// Milliseconds after `since`.
    last: Arc<AtomicU64>,
}

impl Default for Vitals {
    fn default() -> Self {
        Self { since: Instant::now(), last: Arc::default() }
    }
}

impl Vitals {
    /// Records a heartbeat.
    fn beat(&self) {
        let now = u64::try_from(self.since.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    /// How long ago the last heartbeat was; at first, how long the process runs.
    pub fn silent_for(&self) -> Duration {
        let last = Duration::from_millis(self.last.load(Ordering::Relaxed));
        self.since.elapsed().saturating_sub(last)
    }

    /// Whether a worker sent a heartbeat within the time after which it counts as dead.
    pub fn are_good(&self) -> bool {
        self.silent_for() < DEAD_AFTER
    }
}

/// Sends the heartbeats of a worker that has just registered. Returns when the worker counts as dead: its
/// jobs may have been rescued, so it must not start another.
pub(super) async fn beat(db: &PgPool, worker: &str, vitals: &Vitals) -> WorkerError {
    vitals.beat();
    let (mut last, mut trouble) = (Instant::now(), Trouble::default());
    loop {
        pause(HEARTBEAT).await;
        let asked = Instant::now();
        let left = DEAD_AFTER.saturating_sub(last.elapsed());
        let beat = answered(db, queue::heartbeat(db, worker));
        match tokio::time::timeout(left, beat).await {
            Ok(Ok(true)) => {
                last = asked;
                vitals.beat();
                if trouble.ends() {
                    tracing::info!(worker, "heartbeats succeed again");
                }
            }
            Ok(Ok(false)) | Err(_) => return WorkerError::Dead,
            Ok(Err(error)) => {
                if trouble.begins() {
                    tracing::warn!(worker, %error, "a heartbeat failed; the next ones follow");
                }
            }
        }
    }
}
