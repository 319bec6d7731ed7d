//! Fetching: one loop per worker takes as many due jobs as there are free slots, and waits for hints.

use std::time::Duration;

use metrics::histogram;
use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{self, Job, process::Orders},
};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::{hints::Hints, pause, slots::Slots, source::Slotted, supervise::Post};

/// The wait of a loop that nothing wakes any more: the process is about to end.
const ABOUT_TO_END: Duration = Duration::from_secs(5);

/// Takes the due jobs of one queue for one worker.
pub(super) struct Fetcher {
    pub(super) db: PgPool,
    pub(super) worker: String,
    pub(super) queue: &'static str,
    pub(super) hints: Hints,
    pub(super) hint: watch::Receiver<u64>,
    /// Whether the process takes jobs.
    pub(super) orders: watch::Receiver<Orders>,
    /// The slots of the station; a worker that was restarted shares them with its predecessor's jobs.
    pub(super) slots: Slots,
    /// Whether the last fetch left due jobs behind, as far as it could see.
    is_loaded: bool,
}

impl Fetcher {
    pub(super) fn new(post: &Post, worker: &str, slots: Slots) -> Self {
        Self {
            db: post.db.clone(),
            worker: worker.to_owned(),
            queue: post.station.queue,
            hints: post.hints.clone(),
            hint: post.hints.of(post.station.queue),
            orders: post.orders.clone(),
            slots,
            is_loaded: false,
        }
    }

    /// Fetches into `jobs` until `stop`.
    ///
    /// # Errors
    /// A fetch failed. The worker must be restarted under a new name, because jobs may have been taken.
    pub(super) async fn run(
        mut self,
        jobs: mpsc::Sender<Slotted>,
        stop: &CancellationToken,
    ) -> Result<(), sqlx::Error> {
        while let Some(free) = stop.run_until_cancelled(self.free()).await {
            // The counter is read before the fetch, so that a notification during the fetch is not lost.
            self.hint.mark_unchanged();
            let fetched = self.fetch(free).await?;
            self.is_loaded = fetched.len() == free;
            for job in fetched {
                let slot = self.slots.take().await;
                if jobs.send(Slotted { job, slot }).await.is_err() {
                    return Ok(());
                }
            }
            if !self.is_loaded {
                stop.run_until_cancelled(self.wait()).await;
            }
        }
        Ok(())
    }

    /// Waits until the process takes jobs and has free slots, and returns how many.
    async fn free(&mut self) -> usize {
        loop {
            // An error: the process is about to end.
            let _takes_jobs = self.orders.wait_for(|orders| !orders.is_draining).await.is_ok();
            let free = self.slots.free(self.is_loaded).await;
            // It may have been told to drain while all slots were taken; and slots may have been taken away.
            if free > 0 && !self.orders.borrow().is_draining {
                return free;
            }
        }
    }

    async fn fetch(&mut self, free: usize) -> Result<Vec<Job>, sqlx::Error> {
        let limit = i32::try_from(free).unwrap_or(i32::MAX);
        let fetching = queue::fetch(&self.db, &self.worker, self.queue, limit);
        let jobs = answered(&self.db, fetching).await?;
        self.hints.fetched(self.queue, jobs.len());
        for job in &jobs {
            histogram!("tender_queue_latency_seconds", "queue" => self.queue)
                .record(job.waited.as_secs_f64());
        }
        Ok(jobs)
    }

    /// Waits for a hint: of a notification, or of a poll.
    async fn wait(&mut self) {
        if self.hint.changed().await.is_err() {
            pause(ABOUT_TO_END).await;
        }
    }
}
