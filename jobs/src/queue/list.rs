//! Lists of jobs, page by page.

pub(super) mod arms;
mod error;

use std::{fmt, time::Duration};

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgExecutor, PgPool};

use super::JobState;
use arms::Reading;
pub use error::WithError;

/// A job in a list.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct JobSummary {
    /// The id of the row, a ULID.
    pub id: String,
    /// The queue.
    pub queue: String,
    /// The state.
    #[sqlx(try_from = "String")]
    pub state: JobState,
    /// Attempts spent.
    pub attempts: i32,
    /// Attempts allowed.
    pub max_attempts: i32,
    /// When the job is or was due.
    pub run_at: DateTime<Utc>,
    /// When the job ended.
    pub done_at: Option<DateTime<Utc>>,
    /// A job with a higher priority is fetched first.
    pub priority: i32,
    /// The worker that holds the job.
    pub lock_by: Option<String>,
    /// When a worker last fetched or started the job. It is kept after the job ended.
    pub lock_at: Option<DateTime<Utc>>,
    /// The last error, on one line.
    pub error: Option<String>,
    /// What the job is about, such as `relay:<id>`, if its payload says so; see [`crate::subject`].
    pub subject: Option<String>,
    /// What it does there, or why, such as `update`, if its payload says so.
    pub kind: Option<String>,
}

impl JobSummary {
    /// Returns the job's place in the list.
    pub fn cursor(&self) -> Cursor {
        let (is_ended, at) = (self.done_at.is_some(), self.done_at.unwrap_or(self.run_at));
        Cursor { is_ended, at, id: self.id.clone() }
    }
}

/// Selects jobs; `None` matches every job.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Jobs of this queue.
    pub queue: Option<String>,
    /// Jobs in this state.
    pub state: Option<JobState>,
    /// Jobs whose last error contains a text.
    pub error: Option<WithError>,
    /// Of the killed jobs, only those that need attention of their own; see
    /// [`QueueStatus::killed_open`](super::QueueStatus::killed_open).
    pub is_open: bool,
    /// Jobs about one of these things.
    pub about: Option<About>,
    /// Jobs that ended, or are due, at most this long ago.
    pub younger: Option<Duration>,
    /// Jobs that ended, or are due, at least this long ago.
    pub older: Option<Duration>,
}

impl JobFilter {
    /// Whether jobs in this state can match: only killed jobs can need attention, and only a job that is not done has
    /// an error.
    pub(crate) fn may_match(&self, state: JobState) -> bool {
        self.state.is_none_or(|wanted| wanted == state)
            && (!self.is_open || state == JobState::Killed)
            && (self.error.is_none() || state != JobState::Done)
    }

    /// How many jobs of each queue and state a list searches for what no index serves.
    pub fn searched(&self) -> i64 {
        if self.is_open { SEARCHED_UNSEEN } else { SEARCHED }
    }
}

/// Things that jobs are about, as the wings name them; [`crate::subject`] finds them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct About {
    /// The names that `job_subject` in the schema gives them, such as `relay:<id>`.
    pub subjects: Vec<String>,
    /// The keys of their jobs that wait.
    pub keys: Vec<String>,
}

/// A place in the list. It stays valid when the job that was there moves or is deleted.
///
/// Its text is `due-<microseconds>-<id>` among unfinished jobs and `ended-<microseconds>-<id>` among
/// ended ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    is_ended: bool,
    /// When the job was due, or when it ended.
    at: DateTime<Utc>,
    id: String,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let part = if self.is_ended { "ended" } else { "due" };
        write!(f, "{part}-{}-{}", self.at.timestamp_micros(), self.id)
    }
}

impl Cursor {
    /// The first instant that PostgreSQL cannot be asked about here: the year 10000.
    const END: i64 = 253_402_300_800_000_000;

    /// The place after every unfinished job.
    pub(super) fn end_of_unfinished() -> Self {
        let at = DateTime::from_timestamp_micros(Self::END - 1).unwrap_or_default();
        Self { is_ended: false, at, id: String::new() }
    }

    /// Reads the text of a cursor; `None` if malformed.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, '-');
        let is_ended = match parts.next()? {
            "due" => false,
            "ended" => true,
            _ => return None,
        };
        let at = parts.next()?.parse().ok().filter(|at| (0..Self::END).contains(at))?;
        let id = parts.next().filter(|id| !id.contains('\0'))?.to_owned();
        Some(Self { is_ended, at: DateTime::from_timestamp_micros(at)?, id })
    }
}

/// A page of the list.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Page {
    /// The jobs at the start of the list.
    #[default]
    First,
    /// The jobs that follow a place.
    After(Cursor),
    /// The jobs that precede a place, in the order of the list.
    Before(Cursor),
}

impl Page {
    /// Returns the bound of the page among the unfinished or among the ended jobs.
    fn bound(&self, is_ended: bool) -> (Option<DateTime<Utc>>, Option<&str>) {
        match self {
            Self::After(cursor) | Self::Before(cursor) if cursor.is_ended == is_ended => {
                (Some(cursor.at), Some(cursor.id.as_str()))
            }
            _ => (None, None),
        }
    }

    /// Whether the page may hold jobs in this state: unfinished jobs precede ended ones.
    fn may_hold(&self, state: JobState) -> bool {
        match self {
            Self::First => true,
            Self::After(cursor) => state.is_ended() || !cursor.is_ended,
            Self::Before(cursor) => !state.is_ended() || cursor.is_ended,
        }
    }
}

/// The jobs of a queue that a page looks at in each state for an error that more jobs than this have, because no index
/// serves it. More of them would make a page slow.
pub const SEARCHED: i64 = 1000;

/// The last killed jobs of a queue that no operator has seen, among which those that need attention are found. It is
/// wide: a burst of failures that settled themselves must not hide an older one that is open.
pub const SEARCHED_UNSEEN: i64 = 50_000;

/// Returns a page of the matching jobs, at most `limit`: unfinished jobs by when they are due, then
/// ended jobs, the most recently ended first. Jobs of any queue are listed, also of queues that
/// Tender does not know. Jobs with an error that is common ([`WithError::is_common`]) are searched among the first
/// [`SEARCHED`] of each queue and state from the start of the page, and those that need attention among the first
/// [`SEARCHED_UNSEEN`] of each queue.
///
/// # Errors
/// See the module.
pub async fn jobs(
    db: &PgPool,
    filter: &JobFilter,
    page: &Page,
    limit: i64,
) -> Result<Vec<JobSummary>, sqlx::Error> {
    let queues = &queues(db, filter).await?;
    let scanned = Some(filter.searched());
    let mut jobs = Reading { queues, filter, page, limit, scanned }.jobs(db).await?;
    if matches!(page, Page::Before(_)) {
        jobs.reverse();
    }
    Ok(jobs)
}

/// Counts the matching jobs, at most `most`; errors and attention are searched as in [`jobs`].
///
/// # Errors
/// See the module.
pub async fn count(db: &PgPool, filter: &JobFilter, most: i64) -> Result<i64, sqlx::Error> {
    let (queues, page) = (&queues(db, filter).await?, &Page::First);
    let scanned = Some(filter.searched());
    Reading { queues, filter, page, limit: most, scanned }.count(db).await
}

/// Counts the matching jobs, at most `most`. Every job is looked at, as a walk does.
pub(crate) async fn count_all(
    db: &PgPool,
    filter: &JobFilter,
    most: i64,
) -> Result<i64, sqlx::Error> {
    let (queues, page) = (&queues(db, filter).await?, &Page::First);
    Reading { queues, filter, page, limit: most, scanned: None }.count(db).await
}

/// The queues whose jobs may match.
pub(super) async fn queues(db: &PgPool, filter: &JobFilter) -> Result<Vec<String>, sqlx::Error> {
    match &filter.queue {
        Some(queue) => Ok(vec![queue.clone()]),
        None => names(db).await,
    }
}

/// Returns the names of the queues that have jobs, in alphabetical order. It steps from name to name
/// along indexes, so the cost does not grow with the number of jobs.
///
/// # Errors
/// See the module.
pub async fn names(db: impl PgExecutor<'_>) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        r#"with recursive name (queue) as (
               select greatest(
                   (select job_type from apalis.jobs where status = 'Done'
                    order by job_type desc, done_at desc limit 1),
                   (select job_type from apalis.jobs where status = 'Killed'
                    order by job_type desc, done_at desc limit 1),
                   (select job_type from apalis.jobs
                    where status = 'Pending' or (status = 'Failed' and attempts < max_attempts)
                    order by job_type desc, priority, run_at desc limit 1))
               union all
               select greatest(
                   (select job_type from apalis.jobs where status = 'Done' and job_type < queue
                    order by job_type desc, done_at desc limit 1),
                   (select job_type from apalis.jobs where status = 'Killed' and job_type < queue
                    order by job_type desc, done_at desc limit 1),
                   (select job_type from apalis.jobs
                    where (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
                      and job_type < queue
                    order by job_type desc, priority, run_at desc limit 1))
               from name where queue is not null
           )
           select queue as "queue!" from name where queue is not null
           union
           select job_type from apalis.jobs where status in ('Queued', 'Running')
           order by 1"#
    )
    .fetch_all(db)
    .await
}
