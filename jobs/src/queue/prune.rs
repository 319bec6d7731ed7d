//! Pruning: finished jobs and long-dead workers are deleted.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;

use super::{SEARCHED_UNSEEN, list};

/// Rows that one transaction deletes.
const BATCH: i64 = 5000;

/// A killed job that needs attention is kept this many times as long as others.
pub const KEPT_TIMES: u32 = 10;
/// The killed jobs of a queue that may be kept so.
const KEPT: i64 = 1000;

/// How long finished jobs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Done jobs.
    pub done: Duration,
    /// Killed jobs. Those that need attention are kept [`KEPT_TIMES`] as long; see [`kept`].
    pub killed: Duration,
}

/// The numbers of deleted rows.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Pruned {
    /// Finished jobs.
    pub jobs: u64,
    /// Workers without a heartbeat for a day that hold no job.
    pub workers: u64,
}

/// Deletes finished jobs past their retention, at most `batches` × 5,000, and dead workers and processes. What
/// [`kept`] returns stays.
///
/// # Errors
/// See [`queue`](super); rows deleted before the error stay deleted.
pub async fn prune(db: &PgPool, keep: Retention, batches: u32) -> Result<Pruned, sqlx::Error> {
    let mut pruned = Pruned::default();
    let kept = kept(db, keep).await?;
    for _ in 0..batches {
        let deleted = prune_batch(db, keep, &kept).await?;
        pruned.jobs += deleted;
        if deleted < BATCH.unsigned_abs() {
            break;
        }
    }
    pruned.workers = prune_dead(db).await?;
    Ok(pruned)
}

/// Returns the killed jobs that are past their retention and are kept, because they need attention: the row is the
/// only record of a failure that no operator has seen. Of each queue, these are at most the last 1,000, found among the
/// last [`SEARCHED_UNSEEN`] past their retention that no operator has seen.
///
/// # Errors
/// See [`queue`](super).
pub async fn kept(db: &PgPool, keep: Retention) -> Result<Vec<String>, sqlx::Error> {
    let queues = list::names(db).await?;
    sqlx::query_scalar!(
        "select job.id
         from unnest($1::text[]) queue, lateral (
             select id from (
                 select id, metadata, done_at from apalis.jobs
                 where status = 'Killed' and not coalesce(exist(metadata, 'seen'), false)
                   and (job_type, done_at) >= (queue, now() - make_interval(secs => $4))
                   and (job_type, done_at) < (queue, now() - make_interval(secs => $3))
                 order by job_type desc, done_at desc limit $5) unseen
             where exists (select from needs_attention(metadata, done_at)) limit $2) job",
        &queues,
        KEPT,
        keep.killed.as_secs_f64(),
        keep.killed.saturating_mul(KEPT_TIMES).as_secs_f64(),
        SEARCHED_UNSEEN,
    )
    .fetch_all(db)
    .await
}

async fn prune_batch(db: &PgPool, keep: Retention, kept: &[String]) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from apalis.jobs where id in (
             select id from apalis.jobs
             where status in ('Done', 'Killed')
               and done_at < now() - make_interval(secs => least($1::float8, $2::float8))
               and done_at < now() - make_interval(secs => case status when 'Done' then $1 else $2 end)
               and id <> all($4)
             order by done_at
             limit $3
             for update skip locked)",
        keep.done.as_secs_f64(),
        keep.killed.as_secs_f64(),
        BATCH,
        kept,
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

/// Deletes workers, and the rows of processes, that were not seen for a day. Returns the number of workers.
async fn prune_dead(db: &PgPool) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "with processes as (
             delete from process where id in (
                 select id from process where last_seen_at < now() - interval '1 day' for update skip locked))
         delete from apalis.workers worker
         where worker.last_seen < now() - interval '1 day'
           and not exists (select from apalis.jobs job where job.lock_by = worker.id)"
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}
