//! Fetching: one loop per worker takes as many due jobs as there are free slots, and waits for hints.
//!
//! While many jobs are due and each ends at once, it also fetches ahead of the slots, so that no slot waits for a fetch.
//! What is held ahead is not started: another process may take it as soon as it is put back, which happens when the
//! orders change, when it has waited for a second, when jobs become slow, and when the worker stops.
//!
//! ```text
//!             fetch                  a free slot
//!   Pending ─────────▶ held ahead ─────────────────▶ handed out: the handler starts it
//!      ▲                  │
//!      └──────────────────┘ other orders · waited for a second · slow jobs · a stop · (dead: the rescue)
//! ```

use std::{collections::VecDeque, time::Duration};

use metrics::histogram;
use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{self, Job, process::Orders},
};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{hints::Hints, pause, slots::Slots, source::Slotted, supervise::Post};

/// The wait of a loop that nothing wakes any more: the process is about to end.
const ABOUT_TO_END: Duration = Duration::from_secs(5);
/// The longest wait of a job that is held ahead.
const AHEAD_AT_MOST: Duration = Duration::from_secs(1);

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
    /// Where handed-out jobs go.
    jobs: mpsc::Sender<Slotted>,
    /// Fetched jobs that wait for a slot, and since when.
    ahead: VecDeque<(Job, Instant)>,
    /// Whether the last fetch left due jobs behind, as far as it could see.
    is_loaded: bool,
}

impl Fetcher {
    pub(super) fn new(
        post: &Post,
        worker: &str,
        slots: Slots,
        jobs: mpsc::Sender<Slotted>,
    ) -> Self {
        Self {
            db: post.db.clone(),
            worker: worker.to_owned(),
            queue: post.station.queue,
            hints: post.hints.clone(),
            hint: post.hints.of(post.station.queue),
            orders: post.orders.clone(),
            slots,
            jobs,
            ahead: VecDeque::new(),
            is_loaded: false,
        }
    }

    /// Fetches until `stop`, and puts back what is held ahead then: running jobs may last.
    ///
    /// # Errors
    /// A fetch failed. The worker must be restarted under a new name, because jobs may have been taken.
    pub(super) async fn run(mut self, stop: &CancellationToken) -> Result<(), sqlx::Error> {
        while let Some(limit) = stop.run_until_cancelled(self.room()).await {
            let limit = limit?;
            // The counter is read before the fetch, so that a notification during the fetch is not lost.
            self.hint.mark_unchanged();
            let fetched = self.fetch(limit).await?;
            self.is_loaded = fetched.len() == limit;
            let now = Instant::now();
            self.ahead.extend(fetched.into_iter().map(|job| (job, now)));
            if !self.is_loaded {
                stop.run_until_cancelled(self.wait()).await.transpose()?;
            }
        }
        timeout(AHEAD_AT_MOST, self.put_back()).await.unwrap_or(Ok(()))
    }

    /// Hands out what is held ahead, until it is time to fetch again. Returns how many jobs to fetch.
    async fn room(&mut self) -> Result<usize, sqlx::Error> {
        loop {
            let reserve = if self.is_loaded { self.slots.ahead() } else { 0 };
            let held = self.ahead.len();
            if held == 0 {
                return Ok(self.free(self.is_loaded && reserve == 0).await + reserve);
            } else if held <= reserve / 2 {
                return Ok(reserve - held);
            }
            self.hand_out().await?;
            if self.slots.is_slow() {
                self.put_back().await?;
            }
        }
    }

    /// Waits until the process takes jobs and has free slots, and returns how many.
    async fn free(&mut self, is_loaded: bool) -> usize {
        loop {
            // An error: the process is about to end.
            let _takes_jobs = self.orders.wait_for(|orders| !orders.is_draining).await.is_ok();
            let free = self.slots.free(is_loaded).await;
            // It may have been told to drain while all slots were taken; and slots may have been taken away.
            if free > 0 && !self.orders.borrow().is_draining {
                return free;
            }
        }
    }

    /// Fetches, and hands out meanwhile what is held ahead.
    async fn fetch(&mut self, limit: usize) -> Result<Vec<Job>, sqlx::Error> {
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let (db, worker, slots) = (self.db.clone(), self.worker.clone(), self.slots.clone());
        let mut fetching =
            std::pin::pin!(answered(&db, queue::fetch(&db, &worker, self.queue, most)));
        loop {
            tokio::select! {
                fetched = &mut fetching => {
                    let jobs = fetched?;
                    self.hints.fetched(self.queue, jobs.len());
                    return Ok(jobs);
                }
                free = slots.free(false), if self.may_give() => self.give(free).await,
            }
        }
    }

    /// Whether something is held ahead, and the orders are still those under which it was fetched.
    fn may_give(&self) -> bool {
        !self.ahead.is_empty() && self.orders.has_changed().is_ok_and(|changed| !changed)
    }

    /// Waits for free slots, and gives them what is held ahead; or puts it back, if the orders change or a job has waited
    /// for too long.
    async fn hand_out(&mut self) -> Result<(), sqlx::Error> {
        let slots = self.slots.clone();
        let oldest = self.ahead.front().map_or_else(Instant::now, |(_, since)| *since);
        tokio::select! {
            biased;
            Ok(()) = self.orders.changed() => self.put_back().await?,
            free = timeout_at(oldest + AHEAD_AT_MOST, slots.free(false)) => if let Ok(free) = free {
                self.give(free).await;
            } else {
                self.slots.are_slow();
                self.put_back().await?;
            },
        }
        Ok(())
    }

    /// Gives jobs to free slots. Only this loop takes slots: none of the takes waits.
    async fn give(&mut self, free: usize) {
        for (job, since) in self.ahead.drain(..free.min(self.ahead.len())) {
            histogram!("tender_queue_latency_seconds", "queue" => self.queue)
                .record((job.waited + since.elapsed()).as_secs_f64());
            let slot = self.slots.take().await;
            // Refused when the worker has ended, which puts back what was not started.
            let _ended = self.jobs.send(Slotted { job, slot }).await;
        }
    }

    async fn put_back(&mut self) -> Result<(), sqlx::Error> {
        if self.ahead.is_empty() {
            return Ok(());
        }
        let held: Vec<Job> = self.ahead.drain(..).map(|(job, _)| job).collect();
        answered(&self.db, queue::put_back(&self.db, &held)).await.map(drop)
    }

    /// Hands out what was fetched last, and waits for a hint: of a notification, or of a poll.
    async fn wait(&mut self) -> Result<(), sqlx::Error> {
        while !self.ahead.is_empty() {
            self.hand_out().await?;
        }
        if self.hint.changed().await.is_err() {
            pause(ABOUT_TO_END).await;
        }
        Ok(())
    }
}
