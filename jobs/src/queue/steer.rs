//! What an operator does to jobs: retry, cancel or delete. Wings that own a row beside the job wrap these in
//! their own functions; [`crate::steer`] chooses.

use std::collections::HashMap;

use serde_json::json;
use sqlx::{Connection, PgConnection, PgExecutor, PgPool};

use super::JobState;
use crate::database;

/// Attempts to retry a page of jobs while other jobs take their keys.
const TRIES: u32 = 5;

/// Makes a killed or retrying job wait again, due now, with no attempt spent; it takes its key back.
/// Returns false if it is in another state, or if a newer job has the key.
///
/// # Errors
/// See [`queue`](super).
pub async fn retry(db: &PgPool, job_id: &str) -> Result<bool, sqlx::Error> {
    let mut tx = database::begin(db).await?;
    let retried = retry_page(&mut tx, &[job_id.to_owned()]).await?;
    tx.commit().await?;
    Ok(retried == 1)
}

/// Retries the jobs of a page in one statement, within the caller's transaction. If another job takes
/// one of their keys meanwhile, the statement is repeated and finds it. Of several jobs with one key, the one that holds it is retried, or else the
/// newest. Returns how many.
pub(crate) async fn retry_page(db: &mut PgConnection, ids: &[String]) -> Result<u64, sqlx::Error> {
    let mut left = TRIES;
    loop {
        left -= 1;
        let mut tx = db.begin().await?;
        match retry_ids(&mut *tx, ids).await {
            Err(error) if left > 0 && is_key_taken(&error) => tx.rollback().await?,
            retried => {
                let retried = retried?;
                tx.commit().await?;
                return Ok(retried);
            }
        }
    }
}

/// 23505: a unique violation.
fn is_key_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

async fn retry_ids(db: impl PgExecutor<'_>, ids: &[String]) -> Result<u64, sqlx::Error> {
    let retried = sqlx::query!(
        "with matching as (
             select distinct on (job_type, coalesce(idempotency_key, metadata->'key', id))
                    id, job_type, coalesce(idempotency_key, metadata->'key') as key
             from apalis.jobs
             where id = any($1)
             order by job_type, coalesce(idempotency_key, metadata->'key', id),
                      idempotency_key is null, id desc
         )
         update apalis.jobs job
         set status = 'Pending', attempts = 0, run_at = now(), done_at = null, lock_by = null,
             max_attempts = greatest(max_attempts - crashes_of(metadata), 1),
             idempotency_key = key, metadata = ''::hstore
         from matching
         where job.id = matching.id and job.status in ('Killed', 'Failed')
           and not exists (select from apalis.jobs newer
                           where newer.job_type = matching.job_type and newer.id <> matching.id
                             and newer.idempotency_key = matching.key)",
        ids,
    )
    .execute(db)
    .await?;
    Ok(retried.rows_affected())
}

/// Kills waiting and retrying jobs, with a reason. They need no attention: an operator knows of them. Returns the
/// ids of those that were killed; jobs in other states are left alone.
///
/// # Errors
/// See [`queue`](super).
pub(crate) async fn cancel(
    db: impl PgExecutor<'_>,
    job_ids: &[String],
    reason: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar!(
        "update apalis.jobs
         set status = 'Killed', done_at = now(), last_result = $2,
             metadata = hstore('key', idempotency_key) || case when job_is_sole_record(job_type, 'Killed') then '' else hstore('seen', 'yes') end
                 || crashes_as(crashes_of(metadata)),
             idempotency_key = case when strpos(idempotency_key, '@') > 0 then idempotency_key end
         where id in (
                 -- Locked in the order of requeues, which come at the same time when an outage begins.
                 select id from apalis.jobs where id = any($1) and status in ('Pending', 'Failed')
                 order by job_type, coalesce(idempotency_key, metadata->'key'), id for update)
           and status in ('Pending', 'Failed')
         returning id",
        job_ids,
        json!({ "Err": super::one_line(reason) }),
    )
    .fetch_all(db)
    .await
}

/// Deletes the rows of ended jobs, as pruning does later. Returns how many; other jobs are left alone.
///
/// Nothing is lost with the row of an ended job. No statement works on it but those of people. What a wing still
/// has to do is in its own row: a relay with a pending change keeps its generation, and reconcile gives it a job
/// unless it gave up, which its row and its activity say; lanes, removals and services keep their state, and
/// recurring jobs enqueue their work. A run of a recurring job may be enqueued once more, which is harmless.
/// A killed job that is the only record of its work (`job_is_sole_record` in the schema) is left alone; so is
/// every job that has not ended: cancel it first, so that its subject records that it gave up.
///
/// # Errors
/// See [`queue`](super).
pub(crate) async fn delete(
    db: impl PgExecutor<'_>,
    job_ids: &[String],
) -> Result<u64, sqlx::Error> {
    let deleted = sqlx::query!(
        "delete from apalis.jobs
         where id in (select id from apalis.jobs where id = any($1) order by id for update)
           and status in ('Done', 'Killed') and not job_is_sole_record(job_type, status)",
        job_ids,
    )
    .execute(db)
    .await?;
    Ok(deleted.rows_affected())
}

/// Returns the queue of each of these jobs that exists, by id.
pub(crate) async fn queues_of(
    db: impl PgExecutor<'_>,
    job_ids: &[String],
) -> Result<HashMap<String, String>, sqlx::Error> {
    let rows =
        sqlx::query!("select id, job_type as queue from apalis.jobs where id = any($1)", job_ids);
    let rows = rows.fetch_all(db).await?;
    Ok(rows.into_iter().map(|row| (row.id, row.queue)).collect())
}

/// Counts those of these jobs that are in one of these states.
pub(crate) async fn count_in(
    db: impl PgExecutor<'_>,
    job_ids: &[String],
    states: &[JobState],
) -> Result<i64, sqlx::Error> {
    let statuses: Vec<String> = states.iter().map(|state| state.status().to_owned()).collect();
    sqlx::query_scalar!(
        r#"select count(*) as "count!" from apalis.jobs where id = any($1) and status = any($2)"#,
        job_ids,
        &statuses,
    )
    .fetch_one(db)
    .await
}

/// Records that killed jobs need no attention any more.
///
/// # Errors
/// See [`queue`](super).
pub async fn mark_seen(db: impl PgExecutor<'_>, job_ids: &[String]) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update apalis.jobs set metadata = coalesce(metadata, ''::hstore) || hstore('seen', 'yes')
         where id = any($1) and status = 'Killed'",
        job_ids,
    )
    .execute(db)
    .await?;
    Ok(())
}
