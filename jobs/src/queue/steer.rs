//! What an operator does to jobs: retry or cancel. Wings that own a row beside the job wrap these in
//! their own functions; [`crate::steer`] chooses.

use serde_json::json;
use sqlx::{PgExecutor, PgPool};

use super::{JobState, walk::Walk};

/// Attempts to retry a page of jobs while other jobs take their keys.
const TRIES: u32 = 5;

/// Selects killed and retrying jobs.
#[derive(Debug, Clone, Default)]
pub struct Matching {
    /// Jobs of this queue; all queues when `None`.
    pub queue: Option<String>,
    /// Killed or retrying jobs; both when `None`.
    pub state: Option<JobState>,
    /// Jobs whose last error contains this text.
    pub error: Option<String>,
    /// Of the killed jobs, only those that need attention of their own; see
    /// [`QueueStatus::killed_open`](super::QueueStatus::killed_open).
    pub is_open: bool,
}

impl Matching {
    /// Returns the row statuses that match, retrying jobs first because they hold their keys; empty if the state cannot be retried.
    pub(crate) fn statuses(&self) -> Vec<String> {
        [JobState::Retrying, JobState::Killed]
            .into_iter()
            .filter(|state| self.state.is_none_or(|wanted| wanted == *state))
            .map(|state| state.status().to_owned())
            .collect()
    }

    /// Returns the queues whose jobs may match.
    async fn queues(&self, db: &PgPool) -> Result<Vec<String>, sqlx::Error> {
        match &self.queue {
            Some(queue) => Ok(vec![queue.clone()]),
            None => super::names(db).await,
        }
    }
}

/// Makes a killed or retrying job wait again, due now, with no attempt spent; it takes its key back.
/// Returns false if it is in another state, or if a newer job has the key.
///
/// # Errors
/// See [`queue`](super).
pub async fn retry(db: &PgPool, job_id: &str) -> Result<bool, sqlx::Error> {
    Ok(retry_page(db, &[job_id.to_owned()]).await? == 1)
}

/// Does what [`retry`] does to every matching job of queues that are not in `except`, page by page. Of
/// several jobs with one key, the one that holds it is retried, or else the newest. Returns how many.
///
/// # Errors
/// See [`queue`](super). Jobs retried before the error stay retried.
pub async fn retry_matching(
    db: &PgPool,
    matching: &Matching,
    except: &[&str],
) -> Result<u64, sqlx::Error> {
    let mut retried = 0;
    for queue in matching.queues(db).await? {
        if except.contains(&queue.as_str()) {
            continue;
        }
        let mut walk = Walk::new(&queue, matching);
        while let Some(page) = walk.next(db).await? {
            retried += retry_page(db, &page).await?;
        }
    }
    Ok(retried)
}

/// Retries the jobs of a page in one statement. If another job takes one of their keys meanwhile, the
/// statement is repeated and finds it.
async fn retry_page(db: &PgPool, ids: &[String]) -> Result<u64, sqlx::Error> {
    let mut left = TRIES;
    loop {
        left -= 1;
        match retry_ids(db, ids).await {
            Err(error) if left > 0 && is_key_taken(&error) => {}
            retried => return retried,
        }
    }
}

/// 23505: a unique violation.
fn is_key_taken(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(sqlx::error::DatabaseError::is_unique_violation)
}

async fn retry_ids(db: &PgPool, ids: &[String]) -> Result<u64, sqlx::Error> {
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

/// Kills a waiting or retrying job, with a reason. It needs no attention: an operator knows of it. Returns false if it is in another state.
///
/// # Errors
/// See [`queue`](super).
pub async fn cancel(
    db: impl PgExecutor<'_>,
    job_id: &str,
    reason: &str,
) -> Result<bool, sqlx::Error> {
    let cancelled = sqlx::query!(
        "update apalis.jobs
         set status = 'Killed', done_at = now(), last_result = $2,
             metadata = hstore('key', idempotency_key) || hstore('seen', 'yes')
                 || crashes_as(crashes_of(metadata)),
             idempotency_key = case when strpos(idempotency_key, '@') > 0 then idempotency_key end
         where id = $1 and status in ('Pending', 'Failed')",
        job_id,
        json!({ "Err": super::one_line(reason) }),
    )
    .execute(db)
    .await?;
    Ok(cancelled.rows_affected() == 1)
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
