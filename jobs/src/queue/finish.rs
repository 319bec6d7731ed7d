//! Ending a job, well or not.

use serde_json::{Value, json};
use sqlx::PgExecutor;

use super::{Job, Settled, one_line};

/// Ends a job as `Done` and stores its result, which people read.
///
/// # Errors
/// See the module.
pub async fn finish(
    db: impl PgExecutor<'_>,
    job: &Job,
    result: &Value,
) -> Result<Settled<()>, sqlx::Error> {
    end(db, job, "Done", &json!({ "Ok": result }), Payload::Kept).await
}

/// Ends a job like [`finish`], and replaces its payload by `{}`: for payloads that are large, or stored
/// elsewhere by then.
///
/// # Errors
/// See the module.
pub async fn finish_and_empty(
    db: impl PgExecutor<'_>,
    job: &Job,
    result: &Value,
) -> Result<Settled<()>, sqlx::Error> {
    end(db, job, "Done", &json!({ "Ok": result }), Payload::Emptied).await
}

/// Ends a job as `Killed` and stores the reason. A killed job is not retried by itself; it stays
/// visible until someone retries it or it is pruned.
///
/// # Errors
/// See the module.
pub async fn kill(
    db: impl PgExecutor<'_>,
    job: &Job,
    reason: &str,
) -> Result<Settled<()>, sqlx::Error> {
    end(db, job, "Killed", &json!({ "Err": one_line(reason) }), Payload::Kept).await
}

/// Ends a failed job as `Done`, because a newer job for the same thing waits. The error stays
/// readable.
pub(crate) async fn supersede(
    db: impl PgExecutor<'_>,
    job: &Job,
    error: &str,
) -> Result<Settled<()>, sqlx::Error> {
    end(db, job, "Done", &json!({ "Err": one_line(error) }), Payload::Kept).await
}

/// What becomes of the payload of an ended job.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Payload {
    Kept,
    Emptied,
}

/// A killed job remembers its key, so that people and `is_settled` know what it was about.
async fn end(
    db: impl PgExecutor<'_>,
    job: &Job,
    status: &str,
    result: &Value,
    payload: Payload,
) -> Result<Settled<()>, sqlx::Error> {
    let ended = sqlx::query!(
        "update apalis.jobs
         set status = $4, attempts = $3 + 1, done_at = now(), lock_by = null, last_result = $5,
             metadata = case when $4 = 'Killed'
                             then hstore('key', coalesce(idempotency_key, metadata->'key'))
                                  || crashes_as(crashes_of(metadata))
                             else ''::hstore end,
             idempotency_key = case when strpos(idempotency_key, '@') > 0 then idempotency_key end,
             job = case when $6 then '{}'::bytea else job end
         where id = $1 and coalesce(lock_by, '') = $2 and attempts = $3
           and coalesce(status, '') in ('Queued', 'Running')",
        job.id,
        job.worker,
        job.attempt - 1,
        status,
        result,
        payload == Payload::Emptied,
    )
    .execute(db)
    .await?;
    Ok(Settled::of(ended.rows_affected()))
}
