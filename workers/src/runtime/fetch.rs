//! Fetching: one loop per worker takes as many due jobs as there are free slots, and waits for hints.

use std::time::{Duration, Instant};

use metrics::histogram;
use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{self, Depth, Job, RECENT, process::Orders},
};
use tokio::{
    sync::{mpsc, watch},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{pause, slots::Slots, source::Slotted, supervise::Post};

/// How often a worker looks at every due job, and not only at recent ones.
const LOOK_AT_ALL: Duration = Duration::from_secs(5);

/// Takes the due jobs of one queue for one worker.
pub(super) struct Fetcher {
    pub(super) db: PgPool,
    pub(super) worker: String,
    pub(super) queue: &'static str,
    pub(super) poll: Duration,
    pub(super) hint: watch::Receiver<u64>,
    /// Whether the process takes jobs.
    pub(super) orders: watch::Receiver<Orders>,
    /// The slots of the station; a worker that was restarted shares them with its predecessor's jobs.
    pub(super) slots: Slots,
    /// The last look at every due job.
    looked_at_all: Option<Instant>,
    /// Whether a job was due that a look at recent ones would not find.
    is_behind: bool,
    /// Whether the last fetch left due jobs behind, as far as it could see.
    is_loaded: bool,
}

impl Fetcher {
    pub(super) fn new(post: &Post, worker: &str, slots: Slots) -> Self {
        Self {
            db: post.db.clone(),
            worker: worker.to_owned(),
            queue: post.station.queue,
            poll: post.station.poll,
            hint: post.hint.clone(),
            orders: post.orders.clone(),
            slots,
            looked_at_all: None,
            is_behind: false,
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
            if fetched.is_empty() {
                stop.run_until_cancelled(self.wait()).await;
            }
            for job in fetched {
                let slot = self.slots.take().await;
                if jobs.send(Slotted { job, slot }).await.is_err() {
                    return Ok(());
                }
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
        let depth = self.next_depth();
        let limit = i32::try_from(free).unwrap_or(i32::MAX);
        let fetching = queue::fetch(&self.db, &self.worker, self.queue, limit, depth);
        let jobs = answered(&self.db, fetching).await?;
        if depth == Depth::All {
            self.is_behind = jobs.iter().any(|job| job.waited >= RECENT);
        }
        for job in &jobs {
            histogram!("tender_queue_latency_seconds", "queue" => self.queue)
                .record(job.waited.as_secs_f64());
        }
        Ok(jobs)
    }

    /// Mostly recent jobs; every due job at the start, regularly, and while the worker is behind.
    fn next_depth(&mut self) -> Depth {
        let is_recent = self.looked_at_all.is_some_and(|at| at.elapsed() < LOOK_AT_ALL);
        if is_recent && !self.is_behind {
            return Depth::Recent;
        }
        self.looked_at_all = Some(Instant::now());
        Depth::All
    }

    /// Waits for a hint, or for the poll interval.
    async fn wait(&mut self) {
        if let Ok(Err(_)) = timeout(self.poll, self.hint.changed()).await {
            pause(self.poll).await; // the sender is gone: the process is about to end
        }
    }
}
