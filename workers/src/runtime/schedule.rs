//! The schedule, without a leader: every process enqueues each run of each recurring job, and the run's
//! key lets one insertion win (`docs/adr/0007-a-schedule-without-a-leader.md`).

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use futures_util::future::join_all;
use metrics::counter;
use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{self, NewJob, schedule},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{Trouble, failpoint, pause_or_stop};

/// The longest wait between two looks at the database's clock.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// The wait after the database was unreachable.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// When a recurring job runs: a cron expression with seconds, in UTC.
#[derive(Debug, Clone)]
pub struct Schedule(Box<Cron>);

/// The text is not a cron expression with six fields, or it never fires.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a cron expression of six fields, such as `0 * * * * *` for every minute")]
pub struct InvalidCron;

impl FromStr for Schedule {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let parser = CronParser::builder().seconds(Seconds::Required).build();
        let schedule = parser.parse(text).map(|cron| Self(Box::new(cron)));
        // A date that no year has, such as the 31st of February, has no first run.
        schedule.ok().filter(|one| one.after(DateTime::UNIX_EPOCH).is_some()).ok_or(InvalidCron)
    }
}

impl Schedule {
    /// Returns the first run after `now`; `None` if the expression has no further one.
    pub fn after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.find_next_occurrence(&now, false).ok()
    }
}

/// A recurring job.
#[derive(Debug, Clone)]
pub struct Recurring {
    name: &'static str,
    schedule: Schedule,
    job: NewJob,
    runs_at_start: bool,
}

impl Recurring {
    /// Enqueues `job` at each instant of the schedule. The name is unique over all wings; the key of a
    /// run is `name@instant`.
    pub fn new(name: &'static str, schedule: Schedule, job: NewJob) -> Self {
        Self { name, schedule, job, runs_at_start: false }
    }

    /// Also enqueues a run whenever a process starts.
    #[must_use]
    pub fn at_start(mut self) -> Self {
        self.runs_at_start = true;
        self
    }
}

/// A recurring job and its next run.
struct Planned<'a> {
    wing: &'a str,
    one: &'a Recurring,
    due: Option<DateTime<Utc>>,
}

/// Enqueues the runs of the wings' recurring jobs until `shutdown`.
pub(super) async fn run(
    db: PgPool,
    wings: Vec<(&'static str, Vec<Recurring>)>,
    shutdown: CancellationToken,
) {
    failpoint!("part-schedule");
    join_all(wings.iter().map(|(wing, all)| begin(&db, wing, all))).await;
    let mut planned = Vec::new();
    for (wing, all) in &wings {
        planned.extend(all.iter().map(|one| Planned { wing, one, due: None }));
    }
    tick(&db, &mut planned, &shutdown).await;
    shutdown.cancelled().await; // there may be no recurring jobs
}

/// Stores what a wing has, and enqueues the runs of its start.
async fn begin(db: &PgPool, wing: &str, all: &[Recurring]) {
    let names: Vec<&str> = all.iter().map(|one| one.name).collect();
    // A process whose settings leave a wing without recurring jobs knows none that are obsolete.
    if !names.is_empty()
        && let Err(error) = answered(db, schedule::forget_others(db, wing, &names)).await
    {
        tracing::debug!(%error, wing, "could not remove old rows of the schedule");
    }
    // The rows come before the runs, which note on them that they ran.
    if let Ok(now) = answered(db, queue::now(db)).await {
        for one in all {
            plan(db, wing, one, one.schedule.after(now)).await;
            if let Err(error) = answered(db, schedule::remember(db, one.name, &one.job)).await {
                tracing::debug!(%error, one.name, "could not store the job of a run");
            }
        }
    }
    for one in all.iter().filter(|one| one.runs_at_start) {
        enqueue(db, one, &format!("start-{}", Uuid::new_v4())).await;
    }
}

/// Enqueues the runs that are due, and waits for the next. The clock is the database's, so that processes on hosts
/// with different clocks agree on the runs.
async fn tick(db: &PgPool, planned: &mut [Planned<'_>], shutdown: &CancellationToken) {
    let mut trouble = Trouble::default();
    while !planned.is_empty() && !shutdown.is_cancelled() {
        let wait = match answered(db, queue::now(db)).await {
            Ok(now) => {
                let _ended = trouble.ends();
                for one in planned.iter_mut() {
                    one.look(db, now).await;
                }
                let next = planned.iter().filter_map(|one| one.due).min();
                next.and_then(|due| (due - now).to_std().ok()).unwrap_or(LONGEST_WAIT)
            }
            Err(error) => {
                if trouble.begins() {
                    tracing::warn!(%error, "the schedule waits for the database");
                }
                RETRY_AFTER
            }
        };
        pause_or_stop(wait.min(LONGEST_WAIT), shutdown).await;
    }
}

impl Planned<'_> {
    /// Enqueues the run if it is due, and plans the next.
    async fn look(&mut self, db: &PgPool, now: DateTime<Utc>) {
        if self.due.is_some_and(|due| due > now) {
            return;
        }
        if let Some(due) = self.due {
            enqueue(db, self.one, &due.timestamp().to_string()).await;
        }
        self.due = self.one.schedule.after(now);
        plan(db, self.wing, self.one, self.due).await;
    }
}

async fn enqueue(db: &PgPool, one: &Recurring, run: &str) {
    let job = one.job.clone().key(format!("{}@{run}", one.name));
    match answered(db, queue::enqueue(db, &[job])).await {
        Ok(ids) if ids.is_empty() => {} // another process was faster
        Ok(_) => counter!("tender_schedule_ticks_total", "queue" => one.name).increment(1),
        Err(error) => {
            tracing::warn!(%error, one.name, "could not enqueue a run of a recurring job; the next run does its work");
        }
    }
}

/// Stores when the job runs next, for people.
async fn plan(db: &PgPool, wing: &str, one: &Recurring, next: Option<DateTime<Utc>>) {
    let expression = one.schedule.0.pattern.to_string();
    if let Err(error) = answered(db, schedule::plan(db, wing, one.name, &expression, next)).await {
        tracing::debug!(%error, one.name, "could not store the next run; the next look does");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_the_next_of_the_expression() {
        let at = |text: &str| text.parse::<DateTime<Utc>>().expect("a time");
        let minute: Schedule = "0 * * * * *".parse().expect("valid");
        assert_eq!(minute.after(at("2026-01-01T00:00:00Z")), Some(at("2026-01-01T00:01:00Z")));
        assert_eq!(minute.after(at("2026-01-01T00:00:59.5Z")), Some(at("2026-01-01T00:01:00Z")));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "* * * * *", "every minute", "99 * * * * *"] {
            assert_eq!(text.parse::<Schedule>().err(), Some(InvalidCron), "{text}");
        }
    }
}
