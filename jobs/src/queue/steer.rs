//! What an operator does to jobs: retry or cancel. Wings that own a row beside the job wrap these in
//! their own functions; [`crate::steer`] chooses.

use serde_json::json;
use sqlx::PgExecutor;

use super::JobState;

/// Selects killed and retrying jobs.
#[derive(Debug, Clone, Default)]
pub struct Matching {
    /// Jobs of this queue; all queues when `None`.
    pub queue: Option<String>,
    /// Killed or retrying jobs; both when `None`.
    pub state: Option<JobState>,
    /// Jobs whose last error contains this text.
    pub error: Option<String>,
}

impl Matching {
    /// Returns the row statuses that match; empty if the state cannot be retried.
    pub(crate) fn statuses(&self) -> Vec<String> {
        [JobState::Killed, JobState::Retrying]
            .into_iter()
            .filter(|state| self.state.is_none_or(|wanted| wanted == *state))
            .map(|state| state.status().to_owned())
            .collect()
    }
}

/// Makes a killed or retrying job wait again, due now, with no attempt spent; it takes its key back.
/// Returns false if it is in another state, or if a newer job has the key.
///
/// # Errors
/// See [`queue`](super).
pub async fn retry(db: impl PgExecutor<'_>, job_id: &str) -> Result<bool, sqlx::Error> {
    let retried = sqlx::query!(
        "update apalis.jobs job
         set status = 'Pending', attempts = 0, run_at = now(), done_at = null, lock_by = null,
             idempotency_key = coalesce(idempotency_key, metadata->'key'), metadata = ''::hstore
         where id = $1 and status in ('Killed', 'Failed')
           and not exists (select from apalis.jobs newer
                           where newer.job_type = job.job_type and newer.id <> job.id
                             and newer.idempotency_key = coalesce(job.idempotency_key, job.metadata->'key'))",
        job_id,
    )
    .execute(db)
    .await?;
    Ok(retried.rows_affected() == 1)
}

/// Does what [`retry`] does to every matching job of queues that are not in `except`. Of several jobs
/// with one key, the one that holds it is retried, or else the newest. Returns how many.
///
/// # Errors
/// See [`queue`](super).
pub async fn retry_matching(
    db: impl PgExecutor<'_>,
    matching: &Matching,
    except: &[&str],
) -> Result<u64, sqlx::Error> {
    let except: Vec<String> = except.iter().map(|queue| (*queue).to_owned()).collect();
    let retried = sqlx::query!(
        "with matching as (
             select distinct on (job_type, coalesce(idempotency_key, metadata->'key', id))
                    id, job_type, coalesce(idempotency_key, metadata->'key') as key
             from apalis.jobs
             where job_type <> all($1) and ($2::text is null or job_type = $2) and status = any($3)
               and ($4::text is null or strpos(last_result->>'Err', $4) > 0)
             order by job_type, coalesce(idempotency_key, metadata->'key', id),
                      idempotency_key is null, id desc
         )
         update apalis.jobs job
         set status = 'Pending', attempts = 0, run_at = now(), done_at = null, lock_by = null,
             idempotency_key = key, metadata = ''::hstore
         from matching
         where job.id = matching.id and job.status = any($3)
           and not exists (select from apalis.jobs newer
                           where newer.job_type = matching.job_type and newer.id <> matching.id
                             and newer.idempotency_key = matching.key)",
        &except,
        matching.queue,
        &matching.statuses(),
        matching.error,
    )
    .execute(db)
    .await?;
    Ok(retried.rows_affected())
}

/// Kills a waiting or retrying job, with a reason. Returns false if it is in another state.
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
             metadata = hstore('key', idempotency_key),
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
