//! What an operator reads: the counts of queues, and one job with all its columns. Lists are in
//! `list`.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgExecutor, types::Json};

use super::JobSummary;

/// A queue's counts.
#[derive(Debug, Clone, Serialize)]
pub struct QueueStatus {
    /// The name of the queue.
    pub queue: String,
    /// Jobs that wait for their turn.
    pub waiting: i64,
    /// Failed jobs that wait for their next attempt.
    pub retrying: i64,
    /// Jobs that a worker has fetched and not started.
    pub queued: i64,
    /// Jobs that are started.
    pub running: i64,
    /// Jobs that ended with success and are not pruned yet.
    pub done: i64,
    /// Jobs that ended without success and are not pruned yet.
    pub killed: i64,
    /// Of the last 1,000 killed jobs that no operator has seen, those that need attention of their own:
    /// their subject has not succeeded since, and no row of the subject is reported instead
    /// (`needs_attention` in the schema, to which the wings add their keys).
    pub killed_open: i64,
    /// When the most overdue job was due.
    pub oldest_due_at: Option<DateTime<Utc>>,
    /// When the next job comes due.
    pub next_due_at: Option<DateTime<Utc>>,
    /// When the queue was paused, if it is.
    pub paused_at: Option<DateTime<Utc>>,
}

/// A job with every column that people need.
#[derive(Debug, Clone, Serialize)]
pub struct JobDetail {
    /// The columns of a list.
    #[serde(flatten)]
    pub summary: JobSummary,
    /// The first MiB of the payload as text; bytes that are not UTF-8 are replaced.
    pub payload: String,
    /// The key that the job holds; see [`queue`](super).
    pub key: Option<String>,
    /// The row's metadata: `held_by`, `instance`, `key`, `seen`, `crashes`, and what a wing adds.
    pub metadata: BTreeMap<String, Option<String>>,
    /// The result of the last attempt: `{"Ok": …}` or `{"Err": …}`.
    pub result: Option<Value>,
}

/// Counts stop here: a queue with more jobs has "at least" this many.
pub const COUNT_CAP: i64 = 10_000;

/// Counts the jobs of these queues, each count capped at [`COUNT_CAP`], in the order given.
///
/// # Errors
/// See the module.
pub async fn status(
    db: impl PgExecutor<'_>,
    queues: &[&str],
) -> Result<Vec<QueueStatus>, sqlx::Error> {
    let queues: Vec<String> = queues.iter().map(|queue| (*queue).to_owned()).collect();
    sqlx::query_as!(
        QueueStatus,
        r#"select queue as "queue!", waiting as "waiting!", retrying as "retrying!",
                  queued as "queued!", running as "running!", done as "done!",
                  killed as "killed!", killed_open as "killed_open!",
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
                lateral (select count(*) filter (where status = 'Queued') as queued,
                                count(*) filter (where status = 'Running') as running
                         from (select status from apalis.jobs
                               where job_type = queue and status in ('Queued', 'Running') limit $2) w) held,
                -- Along the index alone, and from the oldest: their pages are vacuumed. Without an order
                -- PostgreSQL may read the table instead.
                lateral (select count(*) as done from (select done_at from apalis.jobs
                    where status = 'Done' and (job_type, done_at) > (queue, '-infinity')
                      and (job_type, done_at) < (queue, 'infinity')
                    order by job_type, done_at limit $2) w) done,
                lateral (select count(*) as killed from (select done_at from apalis.jobs
                    where status = 'Killed' and (job_type, done_at) > (queue, '-infinity')
                      and (job_type, done_at) < (queue, 'infinity')
                    order by job_type, done_at limit $2) w) killed,
                lateral (select count(*) as killed_open from (
                    select metadata, done_at from apalis.jobs
                    where status = 'Killed' and not coalesce(exist(metadata, 'seen'), false)
                      and (job_type, done_at) > (queue, '-infinity')
                      and (job_type, done_at) < (queue, 'infinity')
                    order by job_type desc, done_at desc limit 1000) job
                    where exists (select from needs_attention(metadata, done_at))) killed_open
           order by place"#,
        &queues,
        COUNT_CAP,
        &super::PRIORITIES,
    )
    .fetch_all(db)
    .await
}

/// Returns the job with this id.
///
/// # Errors
/// See the module.
pub async fn job(db: impl PgExecutor<'_>, id: &str) -> Result<Option<JobDetail>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select id, job_type as queue, substring(job from 1 for 1048576) as "payload!", status, attempts, max_attempts, run_at,
                  done_at, coalesce(priority, 0) as "priority!", idempotency_key, lock_by, lock_at,
                  hstore_to_jsonb(coalesce(metadata, ''::hstore))
                      as "metadata!: Json<BTreeMap<String, Option<String>>>",
                  last_result::text as result, left(last_result->>'Err', 1000) as error,
                  job_subject(job) as subject, job_kind(job) as kind
           from apalis.jobs where id = $1"#,
        id,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| JobDetail {
        summary: JobSummary {
            id: row.id,
            queue: row.queue,
            state: row.status.into(),
            attempts: row.attempts,
            max_attempts: row.max_attempts,
            run_at: row.run_at,
            done_at: row.done_at,
            priority: row.priority,
            lock_by: row.lock_by,
            lock_at: row.lock_at,
            error: row.error,
            subject: row.subject,
            kind: row.kind,
        },
        payload: String::from_utf8_lossy(&row.payload).into_owned(),
        key: row.idempotency_key,
        metadata: row.metadata.0,
        result: row.result.map(lenient),
    }))
}

/// PostgreSQL accepts JSON that we cannot represent, such as `1e400`: it stays text.
fn lenient(json: String) -> Value {
    serde_json::from_str(&json).unwrap_or(Value::String(json))
}

/// A kind of work that waits in a queue.
#[derive(Debug, Clone, Serialize)]
pub struct WaitingKind {
    /// The queue.
    pub queue: String,
    /// The payload's member `job`, or `?` if it has none or is unreadable.
    pub job: String,
    /// How many jobs of this kind wait.
    pub waiting: i64,
    /// When the oldest due one became due.
    pub oldest_due_at: Option<DateTime<Utc>>,
}

/// Counts the waiting jobs of queues whose payloads name a kind. Looks at 10,000 jobs at most.
///
/// # Errors
/// See the module.
pub async fn waiting_kinds(
    db: impl PgExecutor<'_>,
    queues: &[&str],
) -> Result<Vec<WaitingKind>, sqlx::Error> {
    let queues: Vec<String> = queues.iter().map(|queue| (*queue).to_owned()).collect();
    sqlx::query_as!(
        WaitingKind,
        r#"select job_type as "queue!", coalesce(substring(
                      encode(substring(job from 1 for 4096), 'escape') from '"job": ?"([a-z0-9_-]+)"'), '?') as "job!",
                  count(*) as "waiting!", min(run_at) filter (where run_at <= now()) as oldest_due_at
           from (select job_type, job, run_at from apalis.jobs
                 where job_type = any($1) and status in ('Pending', 'Failed') limit 10000) waiting
           group by 1, 2 order by 1, 2"#,
        &queues,
    )
    .fetch_all(db)
    .await
}
