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
    end(db, job, End::done(result)).await
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
    end(db, job, End { is_emptied: true, ..End::done(result) }).await
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
    end(db, job, End::killed(reason)).await
}

/// Ends a failed job as `Done`, because a newer job for the same thing waits. The error stays
/// readable.
pub(crate) async fn supersede(
    db: impl PgExecutor<'_>,
    job: &Job,
    error: &str,
) -> Result<Settled<()>, sqlx::Error> {
    end(db, job, End { status: "Done", ..End::killed(error) }).await
}

/// How a job ends.
pub(super) struct End {
    pub(super) status: &'static str,
    pub(super) result: Value,
    /// Whether the payload is replaced by `{}`.
    pub(super) is_emptied: bool,
}

impl End {
    pub(super) fn done(result: &Value) -> Self {
        Self { status: "Done", result: json!({ "Ok": result }), is_emptied: false }
    }

    pub(super) fn killed(reason: &str) -> Self {
        Self { status: "Killed", result: json!({ "Err": one_line(reason) }), is_emptied: false }
    }
}

/// The statement that ends a job, between `$head` and `$tail`. A killed job remembers its key, so that people and
/// `needs_attention` know what it was about.
macro_rules! end_job {
    ($job:expr, $end:expr, $head:literal, $tail:literal $(, $argument:expr)*) => {{
        let (job, end): (&Job, &End) = ($job, &$end);
        sqlx::query!(
            $head
                + "update apalis.jobs
                   set status = $4, attempts = $3 + 1, done_at = now(), lock_by = null, last_result = $5,
                       metadata = case when $4 = 'Killed'
                                       then hstore('key', coalesce(idempotency_key, metadata->'key'))
                                            || crashes_as(crashes_of(metadata))
                                       else ''::hstore end,
                       idempotency_key = case when strpos(idempotency_key, '@') > 0 then idempotency_key end,
                       job = case when $6 then '{}'::bytea else job end
                   where id = $1 and coalesce(lock_by, '') = $2 and attempts = $3
                     and coalesce(status, '') in ('Queued', 'Running') "
                + $tail,
            job.id,
            job.worker,
            job.attempt - 1,
            end.status,
            end.result,
            end.is_emptied,
            $($argument),*
        )
    }};
}
pub(super) use end_job;

async fn end(db: impl PgExecutor<'_>, job: &Job, end: End) -> Result<Settled<()>, sqlx::Error> {
    let ended = end_job!(job, end, "", "").execute(db).await?;
    Ok(Settled::of(ended.rows_affected()))
}
