//! Many jobs at once: those that an operator names, or all that match a filter. A page of at most 500 jobs is one
//! transaction, in which the record of the action gets the number done so far; a failure leaves the pages before it
//! done.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use sqlx::{PgConnection, PgPool};

use super::Verb;
use crate::{
    console::operator::Begun,
    provision::{
        self, RESYNC, SYNC_RELAY,
        relay::{By, RelayId},
    },
    queue::{self, JobFilter, PAGE, Walk},
};

/// How far an action on all jobs that match goes before it ends and says how far it came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// The most jobs that it looks at.
    pub jobs: usize,
    /// How long it takes at most, but for the page that it is at.
    pub time: Duration,
}

impl Bounds {
    /// For the dashboard, which cuts a request after 15 s.
    pub const PAGE: Self = Self { jobs: 100_000, time: Duration::from_secs(8) };
    /// For a command.
    pub const COMMAND: Self = Self { jobs: 100_000, time: Duration::from_mins(10) };
    /// For tests and for what must reach every job.
    pub const NONE: Self = Self { jobs: usize::MAX, time: Duration::MAX };
}

/// The result for many jobs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bulk {
    /// How many jobs it was done to; for SyncRelay jobs that are retried, how many relays have a new job.
    pub done: usize,
    /// How many jobs it looked at.
    pub seen: usize,
    /// Whether more jobs match than the call was to look at, or could in its time.
    pub goes_on: bool,
}

/// Steers the jobs with these ids. Those whose state does not allow it are left alone.
///
/// # Errors
/// The database is unreachable or refuses a statement; pages before the error are done.
pub async fn named(
    db: &PgPool,
    verb: Verb,
    ids: &[String],
    by: &By,
    record: Begun,
) -> Result<Bulk, sqlx::Error> {
    let mut steering = Steering::new(db, verb, by, Some(record));
    for page in ids.chunks(PAGE) {
        steering.page(page).await?;
    }
    Ok(Bulk { done: steering.done, seen: ids.len(), goes_on: false })
}

/// Steers all matching jobs whose state allows it, page by page, within `bounds`.
///
/// # Errors
/// As [`named`].
pub async fn matching(
    db: &PgPool,
    verb: Verb,
    filter: &JobFilter,
    bounds: Bounds,
    by: &By,
    record: Begun,
) -> Result<Bulk, sqlx::Error> {
    let mut steering = Steering::new(db, verb, by, Some(record));
    let (mut seen, started) = (0, Instant::now());
    for _ in 0..walks(verb) {
        let (mut walk, before) = (Walk::new(filter, verb.states()), steering.done);
        while let Some(jobs) = walk.next(db).await? {
            if seen >= bounds.jobs || started.elapsed() > bounds.time {
                return Ok(Bulk { done: steering.done, seen, goes_on: true });
            }
            seen += jobs.len();
            let ids: Vec<String> = jobs.into_iter().map(|job| job.id).collect();
            steering.page(&ids).await?;
        }
        if steering.done == before {
            return Ok(Bulk { done: steering.done, seen, goes_on: false });
        }
    }
    let goes_on = count_matching(db, verb, filter, 1).await? > 0 && verb == Verb::Cancel;
    Ok(Bulk { done: steering.done, seen, goes_on })
}

/// How often all matching jobs are walked. A waiting job that a worker puts back to a later time, as it does when an
/// outage begins, comes behind the walk; a walk that meets nothing is the last. A retried job may fail and match again.
fn walks(verb: Verb) -> usize {
    if verb == Verb::Cancel { 10 } else { 1 }
}

/// Counts those of these jobs whose state allows it.
///
/// # Errors
/// The database is unreachable or refuses the statement.
pub async fn count_named(db: &PgPool, verb: Verb, ids: &[String]) -> Result<i64, sqlx::Error> {
    queue::count_in(db, ids, verb.states()).await
}

/// Counts the matching jobs whose state allows it, at most `most`. It looks at the same jobs as [`matching`].
///
/// # Errors
/// The database is unreachable or refuses the statement.
pub async fn count_matching(
    db: &PgPool,
    verb: Verb,
    filter: &JobFilter,
    most: i64,
) -> Result<i64, sqlx::Error> {
    let mut counted = 0;
    for state in verb.states() {
        if filter.may_match(*state) {
            let filter = JobFilter { state: Some(*state), ..filter.clone() };
            counted += queue::count_all(db, &filter, most - counted).await?;
        }
    }
    Ok(counted)
}

/// Steers one page.
pub(super) async fn page(
    db: &PgPool,
    verb: Verb,
    ids: &[String],
    by: &By,
) -> Result<usize, sqlx::Error> {
    let mut steering = Steering::new(db, verb, by, None);
    steering.page(ids).await?;
    Ok(steering.done)
}

struct Steering<'a> {
    db: &'a PgPool,
    verb: Verb,
    by: &'a By,
    record: Option<Begun>,
    /// Relays that have a new job already: several killed jobs may be of one relay.
    requested: HashSet<RelayId>,
    done: usize,
}

impl<'a> Steering<'a> {
    fn new(db: &'a PgPool, verb: Verb, by: &'a By, record: Option<Begun>) -> Self {
        Self { db, verb, by, record, requested: HashSet::new(), done: 0 }
    }

    async fn page(&mut self, ids: &[String]) -> Result<(), sqlx::Error> {
        let mut tx = crate::database::begin(self.db).await?;
        let done = match self.verb {
            Verb::Retry => self.retry(&mut tx, ids).await?,
            Verb::Cancel => self.cancel(&mut tx, ids).await?,
            Verb::Delete => number(queue::delete(&mut *tx, ids).await?),
        };
        if let Some(record) = self.record {
            record.progress(&mut *tx, self.done + done).await?;
        }
        tx.commit().await?;
        self.done += done;
        Ok(())
    }

    /// The page of a resync is not retried: its relays may have changed since, and a new one starts from the first.
    /// Relays are locked before jobs, as every change of a relay does.
    async fn retry(&mut self, tx: &mut PgConnection, ids: &[String]) -> Result<usize, sqlx::Error> {
        let queues = queue::queues_of(&mut *tx, ids).await?;
        let of = |is_meant: fn(&str) -> bool| -> Vec<String> {
            let meant = queues.iter().filter(|(_, queue)| is_meant(queue));
            meant.map(|(id, _)| id.clone()).collect()
        };
        let syncs = of(|queue| queue == SYNC_RELAY);
        let requested = &mut self.requested;
        let relays = provision::steer::retry_page(&mut *tx, &syncs, requested, self.by).await?;
        let others = of(|queue| queue != SYNC_RELAY && queue != RESYNC);
        let requeued = queue::retry_page(tx, &others).await?;
        Ok(relays + number(requeued))
    }

    async fn cancel(&self, tx: &mut PgConnection, ids: &[String]) -> Result<usize, sqlx::Error> {
        let reason = format!("cancelled by {}", self.by.who);
        Ok(provision::steer::cancel(tx, ids, &reason).await?.len())
    }
}

fn number(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}
