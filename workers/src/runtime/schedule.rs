//! The schedule, without a leader: every process enqueues each run of each recurring job, and the run's
//! key lets one insertion win (`docs/adr/0007-a-schedule-without-a-leader.md`).

mod ticks;

use std::str::FromStr;

use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use sqlx::PgPool;
use tender_jobs::{
    database::answered,
    queue::{self, NewJob, schedule},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::failpoint;
use ticks::Ticks;

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

    /// Returns the last run at or before `now`; `None` if there is none.
    fn before(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.find_previous_occurrence(&now, true).ok()
    }
}

/// A recurring job.
#[derive(Debug, Clone)]
pub struct Recurring {
    name: &'static str,
    schedule: Schedule,
    job: NewJob,
    runs_at_start: bool,
    used: Option<watch::Receiver<bool>>,
}

impl Recurring {
    /// Enqueues `job` at each instant of the schedule. The name is unique over all wings; the key of a
    /// run is `name@instant`.
    pub fn new(name: &'static str, schedule: Schedule, job: NewJob) -> Self {
        Self { name, schedule, job, runs_at_start: false, used: None }
    }

    /// Also enqueues a run whenever a process starts.
    #[must_use]
    pub fn at_start(mut self) -> Self {
        self.runs_at_start = true;
        self
    }

    /// Enqueues runs only while `used` is true: else there is nothing for them to do. When it becomes true, the
    /// run of the instant before is enqueued at once, unless a process has done so.
    #[must_use]
    pub fn while_used(mut self, used: watch::Receiver<bool>) -> Self {
        self.used = Some(used);
        self
    }
}

/// Enqueues the runs of the wings' recurring jobs until `shutdown`.
pub(super) async fn run(
    db: PgPool,
    wings: Vec<(&'static str, Vec<Recurring>)>,
    shutdown: CancellationToken,
) {
    failpoint!("part-schedule");
    for (wing, all) in &wings {
        forget_others(&db, wing, all).await;
    }
    let mut ticks = Ticks::new(&db, &wings);
    ticks.begin().await;
    for one in wings.iter().flat_map(|(_, all)| all) {
        begin(&db, one).await;
    }
    ticks.run(&shutdown).await;
    shutdown.cancelled().await; // there may be no recurring jobs
}

/// Removes what a wing of an earlier release had. A process whose settings leave a wing without recurring jobs knows
/// none that are obsolete.
async fn forget_others(db: &PgPool, wing: &str, all: &[Recurring]) {
    let names: Vec<&str> = all.iter().map(|one| one.name).collect();
    if !names.is_empty()
        && let Err(error) = answered(db, schedule::forget_others(db, wing, &names)).await
    {
        tracing::debug!(%error, wing, "could not remove old rows of the schedule");
    }
}

/// Stores what a run enqueues, and enqueues the run of the start.
async fn begin(db: &PgPool, one: &Recurring) {
    if let Err(error) = answered(db, schedule::remember(db, one.name, &one.job)).await {
        tracing::debug!(%error, one.name, "could not store the job of a run");
    }
    if one.runs_at_start {
        let job = one.job.clone().key(format!("{}@start-{}", one.name, Uuid::new_v4()));
        match answered(db, queue::enqueue(db, &[job])).await {
            Ok(_) => ticks::count(one.name),
            Err(error) => ticks::warn(one.name, &error),
        }
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
        assert_eq!(minute.before(at("2026-01-01T00:01:00Z")), Some(at("2026-01-01T00:01:00Z")));
        assert_eq!(minute.before(at("2026-01-01T00:01:59.5Z")), Some(at("2026-01-01T00:01:00Z")));
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "* * * * *", "every minute", "99 * * * * *"] {
            assert_eq!(text.parse::<Schedule>().err(), Some(InvalidCron), "{text}");
        }
    }
}
