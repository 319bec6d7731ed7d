//! Holding: jobs of an instance whose breaker is open wait until it closes, and retries of a relay whose
//! host another relay of ours still has wait until that one has moved. They keep their keys and attempts, and
//! come due by themselves at the time of the next probe or retry.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};

use super::{SYNC_RELAY, job, relay::RelayId, revive, revive::revive_waiting};
use crate::queue::{Guard, Requeue, requeue_all};

/// Jobs that one statement releases; the next round takes the rest.
const BATCH: i64 = 10_000;
/// Pages of relays that gave up and are revived by one round: as many relays as jobs.
const PAGES: usize = 10;
/// Held jobs come due spread over a third of their wait, at most this, so that they do not all call at
/// once.
const LONGEST_SPREAD: Duration = Duration::from_secs(10);
/// Released jobs come due within this time, spread.
pub(super) const RELEASE_WITHIN: Duration = Duration::from_secs(2);

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
/// failed before it opened. Returns how many relays waited: those whose jobs were held, that were to be retried, and that
/// had given up. Others settle behind this: beyond one page of each, the next rounds of [`release_waiting`] release them.
pub(super) async fn release(db: &PgPool, failed_before: &[RelayId]) -> Result<u64, sqlx::Error> {
    let keys: Vec<String> = failed_before.iter().map(job::key).collect();
    let retried = sqlx::query!(
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
    let revived = u64::try_from(revive(db).await?).unwrap_or_default();
    Ok(retried.rows_affected() + release_held(db).await? + revived)
}

/// Makes due what waited for a breaker that has closed, for an instance that has recovered, or for a host
/// that is free now. Also called while something waits (`upkeep_is_due` in the schema), because a process may die
/// between the cause and the release.
///
/// # Errors
/// See [`provision`](super); the next round releases the rest.
pub async fn release_waiting(db: &PgPool) -> Result<(), sqlx::Error> {
    release_held(db).await?;
    for _ in 0..PAGES {
        if revive(db).await? == 0 {
            break;
        }
    }
    release_hosts(db).await
}

/// Makes the held jobs of closed breakers due, and returns how many.
async fn release_held(db: &PgPool) -> Result<u64, sqlx::Error> {
    let released = sqlx::query!(
        "update apalis.jobs job
         set run_at = least(job.run_at, now() + random() * make_interval(secs => $2)),
             metadata = job.metadata - 'held_by'::text
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

/// Makes the jobs due that an instance's breaker held, and whose instance is to be removed.
pub(super) async fn release_of(db: impl PgExecutor<'_>, instance: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update apalis.jobs
         set run_at = least(run_at, now() + random() * make_interval(secs => $2)),
             metadata = metadata - 'held_by'::text
         where status = 'Pending' and metadata->'held_by' = $1",
        instance,
        RELEASE_WITHIN.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A relay has moved from `freed` to `host`: other rows cannot have `host` on zooid any more, and the relays
/// that wait for the freed hosts go on.
pub(super) async fn moved(db: &PgPool, freed: &[String], host: &str) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update relay set old_hosts = array_remove(old_hosts, $1)
         where id in (select id from relay
                      where old_hosts @> array[$1] and old_hosts <> '{}' and confirm_at is null
                        and lease_job is null
                      order by id for update skip locked)",
        host,
    )
    .execute(db)
    .await?;
    release_hosts(db).await?;
    revive_waiting(db, freed).await
}

/// What precedes a host in `held_by`.
pub(super) const HOST: &str = "host:";

/// Makes the retries due that waited for a host which no other relay of ours has any more.
pub(super) async fn release_hosts(db: &PgPool) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update apalis.jobs job
         set run_at = least(job.run_at, now()), metadata = job.metadata - 'held_by'::text
         from (select held.id from apalis.jobs held
               -- The literal is the condition of `jobs_waiting_host_idx`.
               where held.job_type = $1 and held.status = 'Failed'
                 and starts_with(held.metadata->'held_by', 'host:')
                 and not exists (
                     select from relay
                     where old_hosts @> array[substr(held.metadata->'held_by', 6)]
                       and old_hosts <> '{}' and 'relay:' || relay.id <> held.idempotency_key)
               limit $2
               for update of held skip locked) due
         where job.id = due.id",
        SYNC_RELAY,
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(())
}
