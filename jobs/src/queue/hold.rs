//! Holding: jobs that wait for something other than their own time keep their key and their
//! attempts, and come back by themselves when nobody calls them sooner.

use sqlx::{PgExecutor, PgPool};

use super::{Job, SYNC_RELAY, Settled};

/// Jobs released in one statement; the next round takes the rest.
const BATCH: i64 = 10_000;
/// Held jobs come back spread over a third of their wait, at most this, so that they do not all
/// knock at once.
const LONGEST_SPREAD_SECS: f64 = 10.0;
/// Released jobs are due within this time, spread.
const RELEASE_SECS: f64 = 2.0;

/// Puts fetched jobs back until the instance's breaker is worth asking again. They are only
/// fetched, so they hold their keys, and nobody else may touch them.
pub(super) async fn hold(
    db: impl PgExecutor<'_>,
    instance: &str,
    job_ids: &[String],
    seconds: f64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update apalis.jobs
         set status = 'Pending', lock_by = null, lock_at = null,
             metadata = hstore('held_by', $2),
             run_at = now() + make_interval(secs => $3 + random() * $4)
         where id = any($1) and status = 'Queued'",
        job_ids,
        instance,
        seconds,
        spread(seconds),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How far held jobs are spread beyond a wait.
pub(super) fn spread(seconds: f64) -> f64 {
    (seconds / 3.0).min(LONGEST_SPREAD_SECS)
}

/// Puts one fetched job back for about `seconds`.
///
/// # Errors
/// The database did not answer.
pub async fn put_back(
    db: impl PgExecutor<'_>,
    job: &Job,
    seconds: f64,
) -> Result<Settled<()>, sqlx::Error> {
    let put_back = sqlx::query!(
        "update apalis.jobs
         set status = 'Pending', lock_by = null, lock_at = null,
             run_at = now() + make_interval(secs => $4 * (1 + random()))
         where id = $1 and lock_by = $2 and attempts = $3 and status = 'Queued'",
        job.id,
        job.worker,
        job.attempt - 1,
        seconds,
    )
    .execute(db)
    .await?;
    let is_written = put_back.rows_affected() == 1;
    Ok(if is_written { Settled::Written(()) } else { Settled::LeaseLost })
}

/// After a breaker closed: what it held goes within 2 s, and so do the retries of the relays that
/// failed before it opened.
pub(super) async fn release(db: &PgPool, failed_before: &[String]) -> Result<(), sqlx::Error> {
    let keys: Vec<String> = failed_before.iter().map(|id| format!("relay:{id}")).collect();
    sqlx::query!(
        "update apalis.jobs
         set run_at = now() + random() * make_interval(secs => $3)
         where job_type = $1 and idempotency_key = any($2) and status = 'Failed'
           and run_at > now() + make_interval(secs => $3)",
        SYNC_RELAY,
        &keys,
        RELEASE_SECS,
    )
    .execute(db)
    .await?;
    while release_held(db).await? == BATCH.unsigned_abs() {}
    Ok(())
}

/// Makes jobs due that a breaker holds which is closed now; how many. Also called regularly, for
/// breakers whose closer died before it did this.
///
/// # Errors
/// The database did not answer; the next round does it.
pub async fn release_held(db: &PgPool) -> Result<u64, sqlx::Error> {
    let released = sqlx::query!(
        "update apalis.jobs job
         set run_at = least(job.run_at, now() + random() * make_interval(secs => $2)),
             metadata = ''::hstore
         from (select held.id from apalis.jobs held
               join zooid_instance instance on instance.name = held.metadata->'held_by'
               where held.job_type = $1 and held.status = 'Pending' and instance.opened_at is null
               limit $3
               for update of held skip locked) due
         where job.id = due.id",
        SYNC_RELAY,
        RELEASE_SECS,
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}
