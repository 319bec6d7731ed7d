//! Lists of jobs, page by page.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{PgExecutor, PgPool};

use super::{JobState, PRIORITIES};

/// A job in a list.
#[derive(Debug, Clone, Serialize)]
pub struct JobSummary {
    /// The id of the row, a ULID.
    pub id: String,
    /// The queue.
    pub queue: String,
    /// The state.
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
    /// Jobs whose last error contains this text.
    pub error: Option<String>,
    /// Of the killed jobs, only those that need attention of their own; see
    /// [`QueueStatus::killed_open`](super::QueueStatus::killed_open).
    pub is_open: bool,
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

/// Returns a page of the matching jobs, at most `limit`: unfinished jobs by when they are due, then
/// ended jobs, the most recently ended first. Jobs of any queue are listed, also of queues that
/// Tender does not know.
///
/// With an error text the cost grows with the number of jobs in the queue, because no index serves it.
///
/// # Errors
/// See the module.
pub async fn jobs(
    db: &PgPool,
    filter: &JobFilter,
    page: &Page,
    limit: i64,
) -> Result<Vec<JobSummary>, sqlx::Error> {
    let queues = match &filter.queue {
        Some(queue) => vec![queue.clone()],
        None => names(db).await?,
    };
    if matches!(page, Page::Before(_)) {
        let mut jobs = before(db, &queues, filter, page, limit).await?;
        jobs.reverse();
        return Ok(jobs);
    }
    after(db, &queues, filter, page, limit).await
}

/// Runs one of the two statements; both have the same parameters.
macro_rules! walk {
    ($file:literal, $db:expr, $queues:expr, $filter:expr, $page:expr, $limit:expr) => {{
        let ((due_at, due_id), (ended_at, ended_id)) = ($page.bound(false), $page.bound(true));
        let states = JobState::ALL.into_iter().filter(|state| {
            $page.may_hold(*state) && $filter.state.is_none_or(|wanted| wanted == *state)
        });
        let statuses: Vec<String> = states.map(|state| state.status().to_owned()).collect();
        sqlx::query_file_as!(
            JobSummary,
            $file,
            $queues,
            &statuses,
            $filter.error,
            due_at,
            due_id,
            ended_at,
            ended_id,
            $limit,
            &PRIORITIES,
            $filter.is_open,
        )
        .fetch_all($db)
        .await
    }};
}

async fn after(
    db: &PgPool,
    queues: &[String],
    filter: &JobFilter,
    page: &Page,
    limit: i64,
) -> Result<Vec<JobSummary>, sqlx::Error> {
    walk!("src/queue/list_after.sql", db, queues, filter, page, limit)
}

async fn before(
    db: &PgPool,
    queues: &[String],
    filter: &JobFilter,
    page: &Page,
    limit: i64,
) -> Result<Vec<JobSummary>, sqlx::Error> {
    walk!("src/queue/list_before.sql", db, queues, filter, page, limit)
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
