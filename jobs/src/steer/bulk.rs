//! Many jobs at once: those that an operator names, or all that match a filter. A page of at most 500 jobs is one
//! transaction; a failure leaves the pages before it done.

use std::{
    collections::HashSet,
    time::{Duration, Instant},
};

use sqlx::PgPool;

use super::Verb;
use crate::{
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
pub async fn named(db: &PgPool, verb: Verb, ids: &[String], by: &By) -> Result<Bulk, sqlx::Error> {
    let mut steering = Steering::new(db, verb, by);
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
) -> Result<Bulk, sqlx::Error> {
    let mut steering = Steering::new(db, verb, by);
    let mut walk = Walk::new(filter, verb.states());
    let (mut seen, started) = (0, Instant::now());
    while let Some(jobs) = walk.next(db).await? {
        if seen >= bounds.jobs || started.elapsed() > bounds.time {
            return Ok(Bulk { done: steering.done, seen, goes_on: true });
        }
        seen += jobs.len();
        let ids: Vec<String> = jobs.into_iter().map(|job| job.id).collect();
        steering.page(&ids).await?;
    }
    Ok(Bulk { done: steering.done, seen, goes_on: false })
}

/// Counts those of these jobs whose state allows it.
///
/// # Errors
/// The database is unreachable or refuses the statement.
pub async fn count_named(db: &PgPool, verb: Verb, ids: &[String]) -> Result<i64, sqlx::Error> {
    queue::count_in(db, ids, verb.states()).await
}

/// Counts the matching jobs whose state allows it, at most `most`. As in lists, errors are searched in a bounded
/// number of jobs, so there may be more.
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
            counted += queue::count(db, &filter, most - counted).await?;
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
    let mut steering = Steering::new(db, verb, by);
    steering.page(ids).await?;
    Ok(steering.done)
}

struct Steering<'a> {
    db: &'a PgPool,
    verb: Verb,
    by: &'a By,
    /// Relays that have a new job already: several killed jobs may be of one relay.
    requested: HashSet<RelayId>,
    done: usize,
}

impl<'a> Steering<'a> {
    fn new(db: &'a PgPool, verb: Verb, by: &'a By) -> Self {
        Self { db, verb, by, requested: HashSet::new(), done: 0 }
    }

    async fn page(&mut self, ids: &[String]) -> Result<(), sqlx::Error> {
        self.done += match self.verb {
            Verb::Retry => self.retry(ids).await?,
            Verb::Cancel => self.cancel(ids).await?,
            Verb::Delete => number(queue::delete(self.db, ids).await?),
        };
        Ok(())
    }

    /// The page of a resync is not retried: its relays may have changed since, and a new one starts from the first.
    async fn retry(&mut self, ids: &[String]) -> Result<usize, sqlx::Error> {
        let queues = queue::queues_of(self.db, ids).await?;
        let of = |is_meant: fn(&str) -> bool| -> Vec<String> {
            let meant = queues.iter().filter(|(_, queue)| is_meant(queue));
            meant.map(|(id, _)| id.clone()).collect()
        };
        let others = of(|queue| queue != SYNC_RELAY && queue != RESYNC);
        let requeued = queue::retry_page(self.db, &others).await?;
        let syncs = of(|queue| queue == SYNC_RELAY);
        let requested = &mut self.requested;
        let relays = provision::steer::retry_page(self.db, &syncs, requested, self.by).await?;
        Ok(relays + number(requeued))
    }

    async fn cancel(&self, ids: &[String]) -> Result<usize, sqlx::Error> {
        let reason = format!("cancelled by {}", self.by.who);
        let mut tx = self.db.begin().await?;
        let cancelled = provision::steer::cancel(&mut tx, ids, &reason).await?;
        tx.commit().await?;
        Ok(cancelled.len())
    }
}

fn number(rows: u64) -> usize {
    usize::try_from(rows).unwrap_or(usize::MAX)
}
