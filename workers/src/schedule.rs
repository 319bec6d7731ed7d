//! The schedule, without a leader: every process inserts each tick of each recurring job, and the
//! tick's key lets one insert win.

use std::{str::FromStr, time::Duration};

use chrono::{DateTime, Utc};
use croner::{
    Cron,
    parser::{CronParser, Seconds},
};
use metrics::counter;
use sqlx::PgPool;
use tender_jobs::{queue, recurring};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::Context;

/// Pruning: in the middle of every minute, away from the full minutes of reconcile.
const PRUNE_SCHEDULE: &str = "30 * * * * *";
/// Longest sleep between two looks at the database's clock.
const LONGEST_WAIT: Duration = Duration::from_mins(1);
/// Wait after the database did not answer.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// When a recurring job runs: a cron expression with seconds, in UTC.
#[derive(Debug, Clone)]
pub struct Schedule(Box<Cron>);

/// The text is no cron expression with six fields.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a cron expression of six fields, such as `0 * * * * *` for every minute")]
pub struct InvalidCron;

impl FromStr for Schedule {
    type Err = InvalidCron;

    fn from_str(text: &str) -> Result<Self, InvalidCron> {
        let parser = CronParser::builder().seconds(Seconds::Required).build();
        parser.parse(text).map(|cron| Self(Box::new(cron))).map_err(|_| InvalidCron)
    }
}

impl Schedule {
    /// The first tick after `now`; `None` when the expression has no more.
    pub fn after(&self, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.find_next_occurrence(&now, false).ok()
    }
}

pub(crate) async fn run(context: Context, shutdown: CancellationToken) {
    let db = &context.db;
    let Ok(prune) = PRUNE_SCHEDULE.parse::<Schedule>() else { return };
    let reconcile = context.settings.reconcile_schedule.clone();
    let start = format!("{}@start-{}", queue::RECONCILE, Uuid::new_v4());
    insert(db, queue::RECONCILE, &start).await;
    tokio::join!(
        tick(db, queue::RECONCILE, reconcile, &shutdown),
        tick(db, queue::PRUNE, prune, &shutdown),
    );
}

/// Inserts the ticks of one recurring job until `shutdown`. The clock is the database's, so that
/// processes on hosts with different clocks agree on which tick is which.
async fn tick(db: &PgPool, queue: &'static str, schedule: Schedule, shutdown: &CancellationToken) {
    let mut due: Option<DateTime<Utc>> = None;
    while !shutdown.is_cancelled() {
        let wait = match queue::now(db).await {
            Ok(now) => {
                if let Some(tick) = due.filter(|tick| *tick <= now) {
                    insert(db, queue, &format!("{queue}@{}", tick.timestamp())).await;
                }
                due = schedule.after(now);
                plan(db, queue, &schedule, due).await;
                due.and_then(|tick| (tick - now).to_std().ok()).unwrap_or(LONGEST_WAIT)
            }
            Err(error) => {
                tracing::warn!(%error, queue, "the schedule waits for the database");
                RETRY_AFTER
            }
        };
        let wait = wait.min(LONGEST_WAIT);
        let _stop_or_time = tokio::time::timeout(wait, shutdown.cancelled()).await;
    }
}

async fn insert(db: &PgPool, queue: &'static str, name: &str) {
    match queue::enqueue_once(db, queue, name).await {
        Ok(true) => counter!("tender_schedule_ticks_total", "queue" => queue).increment(1),
        Ok(false) => {} // another process was faster
        Err(error) => {
            tracing::warn!(%error, queue, "could not insert a run of a recurring job; the next is in time");
        }
    }
}

/// For people: when it runs next.
async fn plan(db: &PgPool, queue: &str, schedule: &Schedule, next: Option<DateTime<Utc>>) {
    if let Err(error) = recurring::plan(db, queue, &schedule.0.pattern.to_string(), next).await {
        tracing::debug!(%error, queue, "could not write the schedule's row; the next look does");
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
