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
use tender_jobs::{
    lane::LaneKind,
    queue::{self, Work},
    recurring,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{Context, Settings, sync::Profile};

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

/// A recurring job: its name, when it runs, and how a tick of it gets into the queue.
#[derive(Debug, Clone)]
struct Recurring {
    name: &'static str,
    schedule: Schedule,
    /// What a tick of event sync carries; `None`: nothing, in a queue of the same name.
    work: Option<Work>,
}

/// Every recurring job of event sync: name, cron expression in production and in development.
const SYNC: [(&str, &str, Option<&str>); 6] = [
    ("realtime-sync", "0 */5 * * * *", Some("0 */2 * * * *")),
    ("backfill-sync", "0 0 * * * *", Some("0 */10 * * * *")),
    ("upload-sync", "0 */15 * * * *", Some("0 */5 * * * *")),
    ("sync-recovery", "0 */10 * * * *", Some("0 */5 * * * *")),
    ("full-sync", "0 0 3 * * *", None),
    ("purge-expired", "0 30 * * * *", Some("0 30 * * * *")),
];

fn work_of(name: &str) -> Work {
    let mode = |mode| Work::Orchestrate { mode, upstream: None, manual: false };
    match name {
        "backfill-sync" => mode(LaneKind::Backfill),
        "upload-sync" => mode(LaneKind::Upload),
        "full-sync" => mode(LaneKind::Full),
        "sync-recovery" => Work::Recover,
        "purge-expired" => Work::Purge,
        _ => mode(LaneKind::Realtime),
    }
}

/// Everything that recurs in this deployment.
fn recurring(settings: &Settings) -> Vec<Recurring> {
    let plain = |name, schedule| Recurring { name, schedule, work: None };
    let mut all = vec![plain(queue::RECONCILE, settings.reconcile_schedule.clone())];
    all.extend(PRUNE_SCHEDULE.parse().ok().map(|schedule| plain(queue::PRUNE, schedule)));
    all.extend(SYNC.into_iter().filter_map(|(name, production, development)| {
        let expression = match settings.sync.profile {
            Profile::Production => Some(production),
            Profile::Development => development,
            Profile::Off => None,
        };
        let schedule = expression?.parse().ok()?;
        Some(Recurring { name, schedule, work: Some(work_of(name)) })
    }));
    all
}

pub(crate) async fn run(context: Context, shutdown: CancellationToken) {
    let db = &context.db;
    let all = recurring(&context.settings);
    let names: Vec<&str> = all.iter().map(|one| one.name).collect();
    if let Err(error) = recurring::forget_others(db, &names).await {
        tracing::debug!(%error, "could not take what does not recur any more off the schedule");
    }
    // The rows before the runs, which note there that they ran.
    if let Ok(now) = queue::now(db).await {
        for one in &all {
            plan(db, one, one.schedule.after(now)).await;
        }
    }
    // A start runs these once: what waits needs no tick.
    for one in all.iter().filter(|one| [queue::RECONCILE, "backfill-sync"].contains(&one.name)) {
        insert(db, one, &format!("{}@start-{}", one.name, Uuid::new_v4())).await;
    }
    futures_util::future::join_all(all.iter().map(|one| tick(db, one, &shutdown))).await;
}

/// Inserts the ticks of one recurring job until `shutdown`. The clock is the database's, so that
/// processes on hosts with different clocks agree on which tick is which.
async fn tick(db: &PgPool, one: &Recurring, shutdown: &CancellationToken) {
    let mut due: Option<DateTime<Utc>> = None;
    while !shutdown.is_cancelled() {
        let wait = match queue::now(db).await {
            Ok(now) => {
                if let Some(tick) = due.filter(|tick| *tick <= now) {
                    insert(db, one, &format!("{}@{}", one.name, tick.timestamp())).await;
                }
                due = one.schedule.after(now);
                plan(db, one, due).await;
                due.and_then(|tick| (tick - now).to_std().ok()).unwrap_or(LONGEST_WAIT)
            }
            Err(error) => {
                tracing::warn!(%error, one.name, "the schedule waits for the database");
                RETRY_AFTER
            }
        };
        let wait = wait.min(LONGEST_WAIT);
        let _stop_or_time = tokio::time::timeout(wait, shutdown.cancelled()).await;
    }
}

async fn insert(db: &PgPool, one: &Recurring, key: &str) {
    let inserted = match &one.work {
        Some(work) => queue::push_tick(db, work, key).await,
        None => queue::enqueue_once(db, one.name, key).await,
    };
    match inserted {
        Ok(true) => counter!("tender_schedule_ticks_total", "queue" => one.name).increment(1),
        Ok(false) => {} // another process was faster
        Err(error) => {
            tracing::warn!(%error, one.name, "could not insert a run of a recurring job; the next is in time");
        }
    }
}

/// For people: when it runs next.
async fn plan(db: &PgPool, one: &Recurring, next: Option<DateTime<Utc>>) {
    let expression = one.schedule.0.pattern.to_string();
    if let Err(error) = recurring::plan(db, one.name, &expression, next).await {
        tracing::debug!(%error, one.name, "could not write the schedule's row; the next look does");
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
    fn every_schedule_of_event_sync_is_one() {
        for (name, production, development) in SYNC {
            for expression in [Some(production), development].into_iter().flatten() {
                assert!(expression.parse::<Schedule>().is_ok(), "{name}: {expression}");
            }
        }
    }

    #[test]
    fn what_is_no_schedule_is_refused() {
        for text in ["", "* * * * *", "every minute", "99 * * * * *"] {
            assert_eq!(text.parse::<Schedule>().err(), Some(InvalidCron), "{text}");
        }
    }
}
