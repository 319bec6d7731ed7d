//! Polls: one statement for all queues of a process tells which have a due job, and when the next one is due.
//! Notifications make polls rare: see `docs/adr/0026-one-poll-per-process.md`.

use std::time::Duration;

use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::low_water::{self, Barrier},
};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Trouble, failpoint, hints::Hints};

/// The time between two polls while notifications arrive. A job that is due within it is announced.
const POLL: Duration = Duration::from_secs(30);
/// The time between two polls without notifications, and after a poll failed.
const POLL_DEAF: Duration = Duration::from_secs(1);
/// The time between an alarm and the next poll, which sets the next alarm: by then, what was due is fetched.
const AFTER_ALARM: Duration = Duration::from_millis(100);
/// A poll looks below the marks after so many others.
const CHECK_EACH: u32 = 10;
/// How often the marks of busy queues are moved.
const ADVANCE: Duration = Duration::from_secs(1);
/// A queue is busy after so many fetched jobs. Fewer dead entries cost less to pass than the mark to move.
const BUSY: u64 = 100;
/// Added to the time until a job is due: an alarm that rings too early finds nothing, and is gone.
const LATER: Duration = Duration::from_millis(5);

/// Polls for the queues of a process.
pub(super) struct Poller {
    db: PgPool,
    hints: Hints,
    queues: Vec<String>,
    barrier: Option<Barrier>,
    polls: u32,
    polling: Trouble,
    advancing: Trouble,
}

impl Poller {
    pub(super) fn new(db: &PgPool, hints: &Hints) -> Self {
        let (barrier, polls, polling, advancing) = Default::default();
        let (db, hints, queues) = (db.clone(), hints.clone(), hints.queues());
        Self { db, hints, queues, barrier, polls, polling, advancing }
    }

    /// Polls until `shutdown`.
    pub(super) async fn run(mut self, shutdown: CancellationToken) {
        failpoint!("part-polls");
        shutdown.run_until_cancelled(Box::pin(self.serve())).await;
    }

    async fn serve(&mut self) {
        let mut listening = self.hints.is_listening.subscribe();
        let mut poll_at = Instant::now();
        let mut advance = tokio::time::interval(ADVANCE);
        advance.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let alarms = self.hints.alarms.clone();
        loop {
            let ring_at = alarms.first().map_or(poll_at, |first| first.min(poll_at));
            tokio::select! {
                () = sleep_until(ring_at) => {
                    if self.ring() {
                        poll_at = poll_at.min(Instant::now() + AFTER_ALARM);
                    }
                }
                () = alarms.changed.notified() => {}
                // Listening began or ended: what came between was not announced.
                Ok(()) = listening.changed() => poll_at = Instant::now(),
                _ = advance.tick() => self.advance().await,
            }
            if poll_at <= Instant::now() {
                // Before the poll: listening that begins during it causes another one.
                listening.mark_unchanged();
                let is_sure = self.poll().await && *listening.borrow();
                poll_at = Instant::now() + if is_sure { POLL } else { POLL_DEAF };
            }
        }
    }

    /// Wakes the queues whose alarms are due. Returns whether there were any.
    fn ring(&self) -> bool {
        let due = self.hints.alarms.take(Instant::now());
        for queue in &due {
            self.hints.wake(queue);
        }
        !due.is_empty()
    }

    /// Looks for due jobs. Returns whether the database answered.
    async fn poll(&mut self) -> bool {
        if self.polls.is_multiple_of(CHECK_EACH) {
            self.check().await;
        }
        self.polls = self.polls.wrapping_add(1);
        match answered(&self.db, low_water::next_due(&self.db, &self.queues)).await {
            Ok(due) => {
                for one in due {
                    if one.is_due {
                        self.hints.wake(&one.queue);
                    }
                    if let Some(wait) = one.next_in {
                        self.hints.due_in(&one.queue, wait.saturating_add(LATER));
                    }
                }
                if self.polling.ends() {
                    tracing::info!("polls for due jobs succeed again");
                }
                true
            }
            Err(error) => {
                if self.polling.begins() {
                    tracing::warn!(%error, "a poll for due jobs failed; the next one follows");
                }
                false
            }
        }
    }

    /// Looks for jobs that wait below the mark of their queue.
    async fn check(&self) {
        match answered(&self.db, low_water::check(&self.db, &self.queues)).await {
            Ok(0) => {}
            Ok(wrong) => tracing::warn!(
                wrong,
                "jobs waited below the low-water marks of their queues: rows were written without the \
                 table's trigger, or PostgreSQL's clock was set back; they are fetched now"
            ),
            Err(error) => tracing::debug!(%error, "could not check the low-water marks"),
        }
    }

    /// Moves the marks of busy queues forward.
    async fn advance(&mut self) {
        let busy = self.hints.take_busy(BUSY);
        if busy.is_empty() {
            return;
        }
        let moved = low_water::advance(&self.db, &busy, self.barrier.as_ref());
        match answered(&self.db, moved).await {
            Ok(barrier) => {
                self.barrier = Some(barrier);
                let _ended = self.advancing.ends();
            }
            Err(error) => {
                if self.advancing.begins() {
                    tracing::warn!(%error, "could not move the low-water marks; fetches become slower");
                }
            }
        }
    }
}
