//! Heartbeats: one statement for all workers of a process, and for the report of the process, in a task of its own, so
//! that a worker whose slots are busy stays alive.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{Alive, DEAD_AFTER},
};
use tokio::{
    sync::{Notify, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{HEARTBEAT, Trouble, failpoint, orders::Reporter, pause};

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

/// A worker that sends heartbeats.
#[derive(Debug)]
struct Beating {
    /// When the last heartbeat that succeeded was asked for.
    last: Instant,
    /// Dropped when the worker counts as dead.
    _alive: oneshot::Sender<()>,
}

/// The heart of a process: sends the heartbeats of its workers.
#[derive(Debug)]
pub(super) struct Heart {
    db: PgPool,
    vitals: Vitals,
    workers: Mutex<HashMap<String, Beating>>,
    left: Notify,
}

impl Heart {
    pub(super) fn new(db: &PgPool, vitals: &Vitals) -> Arc<Self> {
        let (workers, left) = Default::default();
        Arc::new(Self { db: db.clone(), vitals: vitals.clone(), workers, left })
    }

    /// Sends the heartbeats of a worker that has just registered, until the returned value is dropped.
    pub(super) fn join(self: &Arc<Self>, worker: &str) -> Joined {
        self.vitals.beat();
        let (alive, dead) = oneshot::channel();
        let beating = Beating { last: Instant::now(), _alive: alive };
        self.locked().insert(worker.to_owned(), beating);
        Joined { heart: self.clone(), worker: worker.to_owned(), dead }
    }

    /// Sends heartbeats and reports the process until `shutdown`; then it sends heartbeats for as long as workers have
    /// running jobs.
    pub(super) async fn run(self: Arc<Self>, mut reporter: Reporter, shutdown: CancellationToken) {
        failpoint!("part-heart");
        let mut trouble = Trouble::default();
        loop {
            tokio::select! {
                () = pause(HEARTBEAT) => {
                    self.beat(&mut reporter, &mut trouble).await;
                    let _in_time = timeout(HEARTBEAT, reporter.enlist()).await;
                }
                () = self.left.notified(), if shutdown.is_cancelled() => {}
                () = shutdown.cancelled(), if !reporter.has_left() => reporter.leave().await,
            }
            if shutdown.is_cancelled() && self.locked().is_empty() {
                return;
            }
        }
    }

    async fn beat(&self, reporter: &mut Reporter, trouble: &mut Trouble) {
        let asked = Instant::now();
        let (workers, left) = self.to_beat();
        match timeout(left, answered(&self.db, reporter.beat(&workers))).await {
            Ok(Ok(alive)) => {
                self.note(&workers, &alive, asked);
                if trouble.ends() {
                    tracing::info!("heartbeats succeed again");
                }
            }
            Ok(Err(error)) => {
                if trouble.begins() {
                    tracing::warn!(%error, "a heartbeat failed; the next ones follow");
                }
            }
            Err(_) => {}
        }
        self.locked().retain(|_, one| one.last.elapsed() < DEAD_AFTER);
    }

    /// Returns the workers, and the time until the first of them counts as dead.
    fn to_beat(&self) -> (Vec<String>, Duration) {
        let workers = self.locked();
        let oldest = workers.values().map(|one| one.last.elapsed()).max().unwrap_or_default();
        (workers.keys().cloned().collect(), DEAD_AFTER.saturating_sub(oldest))
    }

    /// Notes which of the asked workers live. The others count as dead: their jobs may have been rescued.
    fn note(&self, asked: &[String], alive: &[Alive], at: Instant) {
        let mut workers = self.locked();
        for worker in asked.iter().filter(|name| alive.iter().all(|one| one.id != **name)) {
            workers.remove(worker);
        }
        for one in alive.iter().filter(|one| one.has_beaten) {
            if let Some(beating) = workers.get_mut(&one.id) {
                beating.last = at;
                self.vitals.beat();
            }
        }
    }

    fn locked(&self) -> std::sync::MutexGuard<'_, HashMap<String, Beating>> {
        self.workers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker whose heartbeats are sent.
#[derive(Debug)]
pub(super) struct Joined {
    heart: Arc<Heart>,
    worker: String,
    dead: oneshot::Receiver<()>,
}

impl Joined {
    /// Returns when the worker counts as dead: it must not start another job.
    pub(super) async fn until_dead(&mut self) -> WorkerError {
        let _never_sent = (&mut self.dead).await;
        WorkerError::Dead
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        self.heart.locked().remove(&self.worker);
        self.heart.left.notify_one();
    }
}
