//! What an operator reads: queues, jobs, workers.

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgExecutor;

/// A job's state in our words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waiting for its turn.
    Waiting,
    /// Failed, and waiting for the time of its next attempt.
    Retrying,
    /// Fetched or being worked on.
    Running,
    /// Finished well.
    Done,
    /// Ended without success.
    Killed,
}

impl JobState {
    /// The name shown and accepted as a filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Running => "running",
            Self::Done => "done",
            Self::Killed => "killed",
        }
    }

    /// The rows' words for this state.
    pub(super) fn statuses(self) -> &'static [&'static str] {
        match self {
            Self::Waiting => &["Pending"],
            Self::Retrying => &["Failed"],
            Self::Running => &["Queued", "Running"],
            Self::Done => &["Done"],
            Self::Killed => &["Killed"],
        }
    }

    fn of(status: &str) -> Self {
        match status {
            "Pending" => Self::Waiting,
            "Failed" => Self::Retrying,
            "Queued" | "Running" => Self::Running,
            "Done" => Self::Done,
            _ => Self::Killed,
        }
    }
}

/// A queue's counts.
#[derive(Debug, Clone, Serialize)]
pub struct QueueStatus {
    /// Its name.
    pub queue: String,
    /// Waiting for their turn.
    pub waiting: i64,
    /// Waiting for a next attempt.
    pub retrying: i64,
    /// Fetched or being worked on.
    pub running: i64,
    /// Finished well and not pruned yet.
    pub done: i64,
    /// Ended without success and not pruned yet.
    pub killed: i64,
    /// Killed ones, of the last 1,000, that nobody has looked after: not retried since, and their
    /// relay, if they have one, is not in step.
    pub killed_open: i64,
    /// When the job that waits longest past its time was due.
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// When the next waiting job is due.
    pub next_due_at: Option<DateTime<Utc>>,
    /// Since when nobody fetches from it, if it is paused.
    pub paused_at: Option<DateTime<Utc>>,
}

/// A job in a list.
#[derive(Debug, Clone, Serialize)]
pub struct JobSummary {
    /// Its row's id.
    pub id: String,
    /// Its queue.
    pub queue: String,
    /// Its state.
    pub state: JobState,
    /// Attempts spent.
    pub attempts: i32,
    /// Attempts allowed.
    pub max_attempts: i32,
    /// When it is or was due.
    pub run_at: DateTime<Utc>,
    /// When it ended.
    pub done_at: Option<DateTime<Utc>>,
    /// Its last error, in one line.
    pub error: Option<String>,
}

/// A job with all that its row holds.
#[derive(Debug, Clone, Serialize)]
pub struct JobDetail {
    /// What a list shows.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// What it carries, as text; unreadable bytes are replaced.
    pub payload: String,
    /// Higher goes first.
    pub priority: i32,
    /// The key it holds.
    pub key: Option<String>,
    /// The worker that holds it.
    pub lock_by: Option<String>,
    /// Since when.
    pub lock_at: Option<DateTime<Utc>>,
    /// What the last attempt left: `{"Ok": …}` or `{"Err": …}`.
    pub result: Option<Value>,
}

/// Which jobs.
#[derive(Debug, Clone, Default)]
pub struct JobFilter {
    /// Only of this queue.
    pub queue: Option<String>,
    /// Only in this state.
    pub state: Option<JobState>,
    /// Only those whose last error contains this.
    pub error: Option<String>,
}

/// A worker that was seen in the last day.
#[derive(Debug, Clone, Serialize)]
pub struct Worker {
    /// Its name, unique per start.
    pub id: String,
    /// The queue it serves.
    pub queue: String,
    /// Its last heartbeat.
    pub last_seen: DateTime<Utc>,
    /// Whether that was within the last 30 s.
    pub is_alive: bool,
    /// Where it runs: version, host and process.
    pub process: String,
    /// When it started.
    pub started_at: Option<DateTime<Utc>>,
    /// Jobs it holds.
    pub running: i64,
    /// Some of those, by id.
    pub jobs: Vec<String>,
}

/// The most that a count tells; a queue with more has "at least" so many.
pub const COUNT_CAP: i64 = 10_000;

/// Counts per queue, each capped at 10,000. What is due is looked up per priority, as the queue's index
/// is ordered.
///
/// # Errors
/// The database did not answer.
pub async fn status(db: impl PgExecutor<'_>) -> Result<Vec<QueueStatus>, sqlx::Error> {
    sqlx::query_as!(
        QueueStatus,
        r#"select queue as "queue!", waiting as "waiting!", retrying as "retrying!",
                  running as "running!", done as "done!", killed as "killed!",
                  killed_open as "killed_open!",
                  (select min(first.run_at) from unnest($3::int[]) level, lateral (
                      select run_at from apalis.jobs
                      where job_type = queue and priority = level and run_at <= now()
                        and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
                      order by run_at limit 1) first) as oldest_due_at,
                  (select min(first.run_at) from unnest($3::int[]) level, lateral (
                      select run_at from apalis.jobs
                      where job_type = queue and priority = level and run_at > now()
                        and (status = 'Pending' or (status = 'Failed' and attempts < max_attempts))
                      order by run_at limit 1) first) as next_due_at,
                  (select paused_at from paused_queue p where p.queue = q.queue) as paused_at
           from unnest($1::text[]) with ordinality as q (queue, place),
                lateral (select count(*) as waiting from (select from apalis.jobs
                    where job_type = queue and status = 'Pending' limit $2) w) waiting,
                lateral (select count(*) as retrying from (select from apalis.jobs
                    where job_type = queue and status = 'Failed' and attempts < max_attempts limit $2) w) retrying,
                lateral (select count(*) as running from (select from apalis.jobs
                    where job_type = queue and status in ('Queued', 'Running') limit $2) w) running,
                lateral (select count(*) as done from (select from apalis.jobs
                    where job_type = queue and status = 'Done' limit $2) w) done,
                lateral (select count(*) as killed from (select from apalis.jobs
                    where job_type = queue and status = 'Killed' limit $2) w) killed
                , lateral (select count(*) as killed_open from (
                    select metadata from apalis.jobs
                    where job_type = queue and status = 'Killed' order by done_at desc limit 1000) job
                    where not coalesce(exist(metadata, 'seen'), false)
                      and not exists (select from relay
                                      where relay.id = metadata->'relay' and relay.synced)) killed_open
           order by place"#,
        &super::QUEUES.map(str::to_owned),
        COUNT_CAP,
        &super::PRIORITIES,
    )
    .fetch_all(db)
    .await
}

/// Jobs that match: unfinished first, then the newest.
///
/// # Errors
/// The database did not answer.
pub async fn jobs(
    db: impl PgExecutor<'_>,
    filter: &JobFilter,
    limit: i64,
) -> Result<Vec<JobSummary>, sqlx::Error> {
    let statuses = filter.state.map(|state| {
        state.statuses().iter().map(|status| (*status).to_owned()).collect::<Vec<_>>()
    });
    let rows = sqlx::query!(
        r#"select id, job_type as queue, status, attempts, max_attempts, run_at, done_at,
                  last_result->>'Err' as error
           from apalis.jobs
           where ($1::text is null or job_type = $1) and ($2::text[] is null or status = any($2))
             and ($4::text is null or strpos(last_result->>'Err', $4) > 0)
           order by done_at desc nulls first, run_at, id
           limit $3"#,
        filter.queue,
        statuses.as_deref(),
        limit,
        filter.error,
    )
    .fetch_all(db)
    .await?;
    let summary = rows.into_iter().map(|row| JobSummary {
        id: row.id,
        queue: row.queue,
        state: JobState::of(&row.status),
        attempts: row.attempts,
        max_attempts: row.max_attempts,
        run_at: row.run_at,
        done_at: row.done_at,
        error: row.error,
    });
    Ok(summary.collect())
}

/// The job with this id.
///
/// # Errors
/// The database did not answer.
pub async fn job(db: impl PgExecutor<'_>, id: &str) -> Result<Option<JobDetail>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select id, job_type as queue, job as payload, status, attempts, max_attempts, run_at,
                  done_at, coalesce(priority, 0) as "priority!", idempotency_key, lock_by, lock_at,
                  last_result, last_result->>'Err' as error
           from apalis.jobs where id = $1"#,
        id,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| JobDetail {
        summary: JobSummary {
            id: row.id,
            queue: row.queue,
            state: JobState::of(&row.status),
            attempts: row.attempts,
            max_attempts: row.max_attempts,
            run_at: row.run_at,
            done_at: row.done_at,
            error: row.error,
        },
        payload: String::from_utf8_lossy(&row.payload).into_owned(),
        priority: row.priority,
        key: row.idempotency_key,
        lock_by: row.lock_by,
        lock_at: row.lock_at,
        result: row.last_result,
    }))
}

/// Workers seen in the last day, the living first.
///
/// # Errors
/// The database did not answer.
pub async fn workers(db: impl PgExecutor<'_>) -> Result<Vec<Worker>, sqlx::Error> {
    sqlx::query_as!(
        Worker,
        r#"select worker.id, worker.worker_type as queue, worker.last_seen,
                  worker.last_seen > now() - interval '30 seconds' as "is_alive!",
                  worker.layers as process, worker.started_at,
                  coalesce(array_length(held.jobs, 1), 0)::bigint as "running!",
                  coalesce(held.jobs, '{}') as "jobs!"
           from apalis.workers worker
           left join lateral (select array_agg(id) as jobs from (
               select job.id from apalis.jobs job
               where job.lock_by = worker.id and job.status in ('Queued', 'Running')
               limit 1000) j) held on true
           where worker.last_seen > now() - interval '1 day'
           order by worker.last_seen > now() - interval '30 seconds' desc, worker.worker_type, worker.id
           limit 1000"#
    )
    .fetch_all(db)
    .await
}
