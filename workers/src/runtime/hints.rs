//! Hints: one `LISTEN` connection per process tells when jobs come to wait, and for when. A hint only makes a
//! fetch sooner; polls find every job without it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Deserialize;
use sqlx::{
    Acquire, Connection, PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tender_jobs::{database, queue};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{Listen, Trouble, alarms::Alarms, failpoint, pause_or_stop};

/// Wait before listening again after the connection was lost.
const RECONNECT_AFTER: Duration = Duration::from_secs(2);
/// The longest time without a notification before the connection is checked. A connection on which
/// nothing is sent does not notice that its path is gone.
const PING_EVERY: Duration = Duration::from_secs(10);
/// The longest wait for the answer.
const PING_WITHIN: Duration = Duration::from_secs(5);
/// The longest wait for a connection of its own.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);

/// Returns the connection to listen on; `None` if the process only polls.
pub(super) fn connections(db: &PgPool, listen: &Listen) -> Option<PgPool> {
    match listen {
        Listen::Pool => Some(db.clone()),
        Listen::At(options) => {
            let pool = PgPoolOptions::new().max_connections(1);
            Some(pool.acquire_timeout(CONNECT_WITHIN).connect_lazy_with((**options).clone()))
        }
        Listen::Off => None,
    }
}

/// Checks the listening connection. If it is silent, it is shut down, so that listening starts again.
async fn ping(db: &PgPool, listener: &mut PgListener) -> Result<(), sqlx::Error> {
    let pinged = timeout(PING_WITHIN, async { listener.acquire().await?.ping().await }).await;
    pinged.unwrap_or_else(|_| {
        database::hang_up(&db.connect_options());
        Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into())
    })
}

/// What the process knows of one queue.
#[derive(Debug, Default)]
struct Known {
    /// Grows whenever the queue may have a due job.
    hints: watch::Sender<u64>,
    /// Jobs fetched since the queue's mark was moved.
    fetched: AtomicU64,
}

/// What the process knows of its queues. Cheap to clone; the clones share it.
#[derive(Debug, Clone)]
pub(super) struct Hints {
    queues: Arc<HashMap<String, Known>>,
    pub(super) alarms: Arc<Alarms>,
    pub(super) is_listening: Arc<watch::Sender<bool>>,
}

/// A notification of the queue's table (`note_waiting` in the schema). One without a time says that a job is due.
#[derive(Deserialize)]
struct Notification {
    job_type: String,
    #[serde(default)]
    due_in: f64,
}

impl Hints {
    pub(super) fn new(queues: impl Iterator<Item = &'static str>) -> Self {
        let queues = queues.map(|queue| (queue.to_owned(), Known::default())).collect();
        let is_listening = Arc::new(watch::Sender::new(false));
        Self { queues: Arc::new(queues), alarms: Arc::default(), is_listening }
    }

    /// Returns a receiver that changes whenever the queue may have a due job.
    pub(super) fn of(&self, queue: &str) -> watch::Receiver<u64> {
        self.queues.get(queue).map_or_else(|| watch::channel(0).1, |known| known.hints.subscribe())
    }

    /// The names of the queues.
    pub(super) fn queues(&self) -> Vec<String> {
        self.queues.keys().cloned().collect()
    }

    /// Notes that jobs of a queue were fetched.
    pub(super) fn fetched(&self, queue: &str, jobs: usize) {
        if let Some(known) = self.queues.get(queue) {
            known.fetched.fetch_add(jobs as u64, Ordering::Relaxed);
        }
    }

    /// Returns the queues of which at least `jobs` were fetched since they were last returned.
    pub(super) fn take_busy(&self, jobs: u64) -> Vec<String> {
        let is_busy = |known: &Known| known.fetched.load(Ordering::Relaxed) >= jobs;
        let busy = self.queues.iter().filter(|(_, known)| is_busy(known));
        let counted_again = |(queue, known): (&String, &Known)| {
            known.fetched.store(0, Ordering::Relaxed);
            queue.clone()
        };
        busy.map(counted_again).collect()
    }

    /// Listens until `shutdown`, and again whenever the connection is lost.
    pub(super) async fn listen(self, db: PgPool, shutdown: CancellationToken) {
        failpoint!("part-notifications");
        let mut trouble = Trouble::default();
        while !shutdown.is_cancelled() {
            let listened =
                shutdown.run_until_cancelled(Box::pin(self.listen_once(&db, &mut trouble))).await;
            self.is_listening.send_replace(false);
            if let Some(Err(error)) = listened {
                if trouble.begins() {
                    tracing::warn!(%error, "not listening for new jobs; polling goes on");
                }
                pause_or_stop(RECONNECT_AFTER, &shutdown).await;
            }
        }
    }

    async fn listen_once(&self, db: &PgPool, trouble: &mut Trouble) -> Result<(), sqlx::Error> {
        let mut listener = PgListener::connect_with(db).await?;
        // Else a reconnect within a wait that ends would go unnoticed.
        listener.eager_reconnect(false);
        database::answered(db, listener.listen(queue::CHANNEL)).await?;
        if trouble.ends() {
            tracing::info!("listening for new jobs again");
        }
        // Jobs may have been inserted before this process listened: the change is followed by a poll.
        self.is_listening.send_replace(true);
        loop {
            match timeout(PING_EVERY, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => self.hear(notification.payload()),
                // The connection was lost, and with it perhaps a notification.
                Ok(Ok(None)) => return Ok(()),
                Ok(Err(error)) => return Err(error),
                Err(_) => ping(db, &mut listener).await?,
            }
        }
    }

    fn hear(&self, payload: &str) {
        let Ok(told) = serde_json::from_str::<Notification>(payload) else { return };
        match Duration::try_from_secs_f64(told.due_in) {
            Ok(wait) if !wait.is_zero() => self.due_in(&told.job_type, wait),
            _ => self.wake(&told.job_type),
        }
    }

    /// A job of the queue is due after `wait`.
    pub(super) fn due_in(&self, queue: &str, wait: Duration) {
        if self.queues.contains_key(queue)
            && let Some(at) = Instant::now().checked_add(wait)
        {
            self.alarms.set(queue, at);
        }
    }

    /// A job of the queue may be due.
    pub(super) fn wake(&self, queue: &str) {
        if let Some(known) = self.queues.get(queue) {
            known.hints.send_modify(|count| *count += 1);
        }
    }
}
