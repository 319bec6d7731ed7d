//! Hints: one `LISTEN` connection per process tells the workers that a job is due. A hint only makes a
//! fetch sooner; polling finds every job without it.

use std::{collections::HashMap, sync::Arc, time::Duration};

use serde::Deserialize;
use sqlx::{
    Executor, PgPool,
    postgres::{PgListener, PgPoolOptions},
};
use tender_jobs::{database, queue};
use tokio::{sync::watch, time::timeout};
use tokio_util::sync::CancellationToken;

use super::{Listen, Trouble, failpoint, pause_or_stop};

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
    let pinged = timeout(PING_WITHIN, listener.execute("select 1")).await;
    let Ok(answered) = pinged else {
        database::hang_up(&db.connect_options());
        return Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into());
    };
    answered.map(drop)
}

/// A counter per queue that grows with every notification.
#[derive(Debug, Clone)]
pub(super) struct Hints {
    counters: Arc<HashMap<String, watch::Sender<u64>>>,
}

#[derive(Deserialize)]
struct Notification {
    job_type: String,
}

impl Hints {
    pub(super) fn new(queues: impl Iterator<Item = &'static str>) -> Self {
        let counter = |queue: &str| (queue.to_owned(), watch::Sender::new(0));
        Self { counters: Arc::new(queues.map(counter).collect()) }
    }

    /// Returns a receiver that changes whenever the queue may have a due job.
    pub(super) fn of(&self, queue: &str) -> watch::Receiver<u64> {
        self.counters.get(queue).map_or_else(|| watch::channel(0).1, watch::Sender::subscribe)
    }

    /// Listens until `shutdown`, and again whenever the connection is lost.
    pub(super) async fn listen(self, db: PgPool, shutdown: CancellationToken) {
        failpoint!("part-notifications");
        let mut trouble = Trouble::default();
        while !shutdown.is_cancelled() {
            let listened =
                shutdown.run_until_cancelled(Box::pin(self.listen_once(&db, &mut trouble))).await;
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
        database::answered(db, listener.listen(queue::CHANNEL)).await?;
        if trouble.ends() {
            tracing::info!("listening for new jobs again");
        }
        self.wake_all(); // jobs may have been inserted before this process listened
        loop {
            match timeout(PING_EVERY, listener.try_recv()).await {
                Ok(Ok(Some(notification))) => self.wake(notification.payload()),
                Ok(Ok(None)) => self.wake_all(), // reconnected: a notification may have been missed
                Ok(Err(error)) => return Err(error),
                Err(_) => ping(db, &mut listener).await?,
            }
        }
    }

    fn wake(&self, payload: &str) {
        let Ok(notification) = serde_json::from_str::<Notification>(payload) else { return };
        if let Some(counter) = self.counters.get(&notification.job_type) {
            counter.send_modify(|count| *count += 1);
        }
    }

    fn wake_all(&self) {
        for counter in self.counters.values() {
            counter.send_modify(|count| *count += 1);
        }
    }
}
