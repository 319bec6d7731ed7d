//! Ticks: one statement enqueues the runs that are due and stores when the next ones are. It returns the database's
//! clock, from which the next tick is counted, so that hosts with different clocks agree on the runs.

use std::{
    future::pending,
    time::{Duration, Instant},
};

use chrono::{DateTime, TimeDelta, Utc};
use futures_util::{FutureExt, future::select_all};
use metrics::counter;
use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{
        self,
        schedule::{self, Tick},
    },
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::Recurring;
use crate::runtime::{Trouble, pause_or_stop};

/// The longest wait between two looks at the schedule.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// How long the database's clock is counted on without asking.
const TRUSTED: Duration = Duration::from_secs(90);
/// The wait after the database was unreachable.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// The database's clock, as of an instant of this process.
#[derive(Debug, Clone, Copy)]
struct Clock {
    at: DateTime<Utc>,
    read: Instant,
}

impl Clock {
    fn new(at: DateTime<Utc>) -> Self {
        Self { at, read: Instant::now() }
    }

    /// Returns the time now; `None` if it was not read for a while.
    fn now(&self) -> Option<DateTime<Utc>> {
        let since = self.read.elapsed();
        let now = self.at.checked_add_signed(TimeDelta::from_std(since).ok()?)?;
        (since < TRUSTED).then_some(now)
    }
}

/// A recurring job and its next run.
struct Planned<'a> {
    wing: &'a str,
    one: &'a Recurring,
    used: Option<watch::Receiver<bool>>,
    due: Option<DateTime<Utc>>,
}

impl<'a> Planned<'a> {
    fn new(wing: &'a str, one: &'a Recurring) -> Self {
        Self { wing, one, used: one.used.clone(), due: None }
    }

    fn is_used(&self) -> bool {
        self.used.as_ref().is_none_or(|used| *used.borrow())
    }

    /// Plans the first run.
    fn begin(&self, now: DateTime<Utc>) -> Tick<'a> {
        let next_at = self.is_used().then(|| self.one.schedule.after(now)).flatten();
        self.tick(None, next_at)
    }

    /// Plans the next run, with the one that is due; `None` if nothing changes.
    fn look(&self, now: DateTime<Utc>) -> Option<Tick<'a>> {
        let run = match (self.is_used(), self.due) {
            (true, Some(due)) if due > now => return None,
            (false, None) => return None,
            (false, Some(_)) => return Some(self.tick(None, None)),
            (true, Some(due)) => Some(due),
            // It has just become used.
            (true, None) => self.used.as_ref().and_then(|_| self.one.schedule.before(now)),
        };
        Some(self.tick(run, self.one.schedule.after(now)))
    }

    fn tick(&self, run: Option<DateTime<Utc>>, next_at: Option<DateTime<Utc>>) -> Tick<'a> {
        let Recurring { name, schedule, job, .. } = self.one;
        let key = |at: DateTime<Utc>| format!("{name}@{}", at.timestamp());
        Tick {
            name,
            wing: self.wing,
            expression: schedule.0.pattern.to_string(),
            next_at,
            // Not before: our count may be ahead of the database's clock.
            run: run.map(|at| job.clone().key(key(at)).not_before(Some(at))),
        }
    }

    /// Whether one of these keys is that of a run of this job.
    fn is_among(&self, keys: &[String]) -> bool {
        keys.iter().any(|key| key.split('@').next() == Some(self.one.name))
    }
}

/// The recurring jobs of a process.
pub(super) struct Ticks<'a> {
    db: &'a PgPool,
    planned: Vec<Planned<'a>>,
    clock: Option<Clock>,
}

impl<'a> Ticks<'a> {
    pub(super) fn new(db: &'a PgPool, wings: &'a [(&'static str, Vec<Recurring>)]) -> Self {
        let mut planned = Vec::new();
        for (wing, all) in wings {
            planned.extend(all.iter().map(|one| Planned::new(wing, one)));
        }
        Self { db, planned, clock: None }
    }

    /// Stores the rows of all recurring jobs: they come before the runs, which note on them that they ran. If it
    /// fails, the first looks do it.
    pub(super) async fn begin(&mut self) {
        if let Ok(now) = self.now().await {
            let all: Vec<_> = self.planned.iter().map(|planned| planned.begin(now)).collect();
            if let Err(error) = self.store(all).await {
                tracing::debug!(%error, "could not store the schedule");
            }
        }
    }

    /// Looks whenever a run is due, until `shutdown`.
    pub(super) async fn run(mut self, shutdown: &CancellationToken) {
        let mut trouble = Trouble::default();
        while !self.planned.is_empty() && !shutdown.is_cancelled() {
            let wait = match self.look().await {
                Ok(wait) => {
                    let _ended = trouble.ends();
                    wait
                }
                Err(error) => {
                    if trouble.begins() {
                        tracing::warn!(%error, "the schedule waits for the database");
                    }
                    RETRY_AFTER
                }
            };
            tokio::select! {
                _ = pause_or_stop(wait.min(LONGEST_WAIT), shutdown) => {}
                () = self.use_changed() => {}
            }
        }
    }

    /// Enqueues what is due, and returns the time until the next run.
    async fn look(&mut self) -> Result<Duration, sqlx::Error> {
        let now = self.now().await?;
        let due: Vec<_> = self.planned.iter().filter_map(|planned| planned.look(now)).collect();
        if !due.is_empty() {
            self.store(due).await?;
        }
        let now = self.now().await?;
        let next = self.planned.iter().filter_map(|planned| planned.due).min();
        Ok(next.map_or(LONGEST_WAIT, |due| (due - now).to_std().unwrap_or_default()))
    }

    /// Returns the database's time.
    async fn now(&mut self) -> Result<DateTime<Utc>, sqlx::Error> {
        if let Some(now) = self.clock.and_then(|clock| clock.now()) {
            return Ok(now);
        }
        let now = answered(self.db, queue::now(self.db)).await?;
        self.clock = Some(Clock::new(now));
        Ok(now)
    }

    /// Stores ticks. If the database refuses that, because someone holds a row of the schedule, the runs are enqueued
    /// all the same.
    async fn store(&mut self, ticks: Vec<Tick<'a>>) -> Result<(), sqlx::Error> {
        match answered(self.db, schedule::tick(self.db, &ticks)).await {
            Ok((now, enqueued)) => {
                self.clock = Some(Clock::new(now));
                let enqueued = self.planned.iter().filter(|one| one.is_among(&enqueued));
                enqueued.for_each(|planned| count(planned.one.name));
            }
            Err(error @ sqlx::Error::Database(_)) => {
                tracing::debug!(%error, "could not store the next runs; the next tick does");
                enqueue(self.db, &ticks).await;
            }
            Err(error) => return Err(error),
        }
        for tick in &ticks {
            let stored = self.planned.iter_mut().filter(|planned| planned.one.name == tick.name);
            stored.for_each(|planned| planned.due = tick.next_at);
        }
        Ok(())
    }

    /// Returns when a recurring job has become used or unused.
    async fn use_changed(&mut self) {
        let watched = self.planned.iter_mut().filter_map(|planned| planned.used.as_mut());
        let changes: Vec<_> = watched.map(|used| changed(used).boxed()).collect();
        if changes.is_empty() {
            pending::<()>().await;
        }
        select_all(changes).await;
    }
}

async fn changed(used: &mut watch::Receiver<bool>) {
    if used.changed().await.is_err() {
        pending::<()>().await; // it stays as it is
    }
}

/// Enqueues the runs of ticks one by one.
async fn enqueue(db: &PgPool, ticks: &[Tick<'_>]) {
    for Tick { name, run, .. } in ticks {
        let Some(run) = run.clone() else { continue };
        if let Err(error) = answered(db, queue::enqueue(db, &[run])).await {
            warn(name, &error);
        }
    }
}

/// Counts an enqueued run.
pub(super) fn count(name: &'static str) {
    counter!("tender_schedule_ticks_total", "queue" => name).increment(1);
}

pub(super) fn warn(name: &str, error: &sqlx::Error) {
    tracing::warn!(%error, name, "could not enqueue a run of a recurring job; the next run does its work");
}
