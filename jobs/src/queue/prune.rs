//! Pruning: finished jobs and long-dead workers are deleted.

use std::time::Duration;

use serde::Serialize;
use sqlx::PgPool;

use super::process;

/// Rows that one transaction deletes.
const BATCH: i64 = 5000;

/// How long finished jobs are kept.
#[derive(Debug, Clone, Copy)]
pub struct Retention {
    /// Done jobs.
    pub done: Duration,
    /// Killed jobs.
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

/// Deletes finished jobs past their retention, at most `batches` × 5,000, and dead workers and processes.
///
/// # Errors
/// See [`queue`](super); rows deleted before the error stay deleted.
pub async fn prune(db: &PgPool, keep: Retention, batches: u32) -> Result<Pruned, sqlx::Error> {
    let mut pruned = Pruned::default();
    for _ in 0..batches {
        let deleted = prune_batch(db, keep).await?;
        pruned.jobs += deleted;
        if deleted < BATCH.unsigned_abs() {
            break;
        }
    }
    pruned.workers = prune_workers(db).await?;
    process::forget_dead(db).await?;
    Ok(pruned)
}

async fn prune_batch(db: &PgPool, keep: Retention) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from apalis.jobs where id in (
             select id from apalis.jobs
             where status in ('Done', 'Killed')
               and done_at < now() - make_interval(secs => least($1::float8, $2::float8))
               and done_at < now() - make_interval(secs => case status when 'Done' then $1 else $2 end)
             order by done_at
             limit $3
             for update skip locked)",
        keep.done.as_secs_f64(),
        keep.killed.as_secs_f64(),
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

async fn prune_workers(db: &PgPool) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from apalis.workers worker
         where worker.last_seen < now() - interval '1 day'
           and not exists (select from apalis.jobs job where job.lock_by = worker.id)"
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}
