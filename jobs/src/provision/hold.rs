//! Holding: jobs of an instance whose breaker is open wait until it closes. They keep their keys and
//! attempts, and come due by themselves at the time of the next probe.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};

use super::{SYNC_RELAY, job, relay::RelayId};
use crate::queue::{Guard, Requeue, requeue_all};

/// Jobs that one statement releases; the next round takes the rest.
const BATCH: i64 = 10_000;
/// Held jobs come due spread over a third of their wait, at most this, so that they do not all call at
/// once.
const LONGEST_SPREAD: Duration = Duration::from_secs(10);
/// Released jobs come due within this time, spread.
const RELEASE_WITHIN: Duration = Duration::from_secs(2);

/// Puts fetched jobs back until the instance's breaker may be asked again.
pub(super) async fn hold(
    db: impl PgExecutor<'_>,
    instance: &str,
    fetched: &[Guard],
    wait: Duration,
) -> Result<(), sqlx::Error> {
    requeue_all(db, fetched, &held(instance, wait)).await?;
    Ok(())
}

/// How a job waits for an instance.
pub(super) fn held(instance: &str, wait: Duration) -> Requeue<'_> {
    Requeue::wait(wait).spread((wait / 3).min(LONGEST_SPREAD)).held_by(instance)
}

/// After a breaker closed: its held jobs come due within 2 s, and so do the retries of the relays that
/// failed before it opened.
pub(super) async fn release(db: &PgPool, failed_before: &[RelayId]) -> Result<(), sqlx::Error> {
    let keys: Vec<String> = failed_before.iter().map(job::key).collect();
    sqlx::query!(
        "update apalis.jobs
         set run_at = now() + random() * make_interval(secs => $3)
         where job_type = $1 and idempotency_key = any($2) and status = 'Failed'
           and run_at > now() + make_interval(secs => $3)",
        SYNC_RELAY,
        &keys,
        RELEASE_WITHIN.as_secs_f64(),
    )
    .execute(db)
    .await?;
    while release_held(db).await? == BATCH.unsigned_abs() {}
    Ok(())
}

/// Makes the held jobs of closed breakers due, and returns how many. Also called regularly, because the
/// process that closed a breaker may die before it releases the jobs.
///
/// # Errors
/// See [`provision`](super); the next round releases the rest.
pub async fn release_held(db: &PgPool) -> Result<u64, sqlx::Error> {
    let released = sqlx::query!(
        "update apalis.jobs job
         set run_at = least(job.run_at, now() + random() * make_interval(secs => $2)),
             metadata = crashes_as(crashes_of(metadata))
         from (select held.id from apalis.jobs held
               join zooid_instance instance on instance.name = held.metadata->'held_by'
               where held.job_type = $1 and held.status = 'Pending' and instance.opened_at is null
               limit $3
               for update of held skip locked) due
         where job.id = due.id",
        SYNC_RELAY,
        RELEASE_WITHIN.as_secs_f64(),
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(released.rows_affected())
}
