//! Claim: the start of an attempt. Takes the relay's lease and frees the key of its waiting job.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};

use super::Job;
use crate::relay::{Relay, RelayId, relay_query};

/// The right to call zooid for a relay, and the relay as it was when the right was taken.
#[derive(Debug, Clone)]
pub struct Lease {
    /// What is wanted, at the generation that this attempt carries.
    pub relay: Relay,
    /// Fences the settle: a later lease has a higher one.
    pub epoch: i64,
}

/// What a claim found.
#[derive(Debug)]
pub enum Claim {
    /// The lease is ours until the time asked for.
    Ready(Box<Lease>),
    /// The job is not this worker's any more: rescued, or removed. Nothing may be written.
    Lost,
    /// There is no such relay.
    Gone,
    /// zooid has what is wanted.
    InStep,
    /// Another job holds the lease.
    Busy,
}

/// Claims a fetched job of `sync-relay`: in one statement the job becomes `Running` and its key is
/// free for the next mutation, and the relay's lease is this job's for `lease_for`.
///
/// # Errors
/// The database did not answer; then the job is still `Queued`, or is rescued.
pub async fn claim(
    db: &PgPool,
    job: &Job,
    relay_id: &RelayId,
    lease_for: Duration,
) -> Result<Claim, sqlx::Error> {
    // `held` locks the relay before the job: everyone does, so nobody deadlocks.
    let leased = relay_query!(
        "with held as (
            select id, synced, lease_until from relay where id = $4 for update
        ), job as (
            update apalis.jobs job
            set status = 'Running', idempotency_key = null, lock_at = now()
            where job.id = $1 and job.lock_by = $2 and job.attempts = $3 and job.status = 'Queued'
              and (select count(*) from held) >= 0
            returning job.id
        ), relay as (
            update relay
            set lease_owner = $2, lease_job = $1, lease_epoch = lease_epoch + 1,
                lease_until = now() + make_interval(secs => $5)
            from held, job
            where relay.id = held.id and not held.synced
              and (held.lease_until is null or held.lease_until <= now())
            returning relay.*
        )",
        "from relay",
        job.id,
        job.worker,
        job.attempt - 1,
        relay_id.as_str(),
        lease_for.as_secs_f64(),
    )
    .fetch_optional(db)
    .await?;
    match leased {
        Some(row) => {
            let epoch = row.lease_epoch;
            Ok(Claim::Ready(Box::new(Lease { relay: row.into(), epoch })))
        }
        None => why_not(db, job, relay_id).await,
    }
}

/// The reason why a claim took no lease; read after the fact, and all of them are safe to act on.
async fn why_not(db: &PgPool, job: &Job, relay_id: &RelayId) -> Result<Claim, sqlx::Error> {
    let found = sqlx::query!(
        r#"select relay.synced as "synced?"
           from apalis.jobs job left join relay on relay.id = $3
           where job.id = $1 and job.lock_by = $2 and job.status = 'Running'"#,
        job.id,
        job.worker,
        relay_id.as_str(),
    )
    .fetch_optional(db)
    .await?;
    Ok(match found.map(|row| row.synced) {
        None => Claim::Lost,
        Some(None) => Claim::Gone,
        Some(Some(true)) => Claim::InStep,
        Some(Some(false)) => Claim::Busy,
    })
}

/// The lease that a job holds, if it holds one: for settling an attempt that panicked.
///
/// # Errors
/// The database did not answer.
pub async fn lease_of(
    db: impl PgExecutor<'_>,
    job: &Job,
    relay_id: &RelayId,
) -> Result<Option<Lease>, sqlx::Error> {
    let row = relay_query!(
        "",
        "from relay where id = $1 and lease_job = $2 and lease_owner = $3",
        relay_id.as_str(),
        job.id,
        job.worker,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| {
        let epoch = row.lease_epoch;
        Lease { relay: row.into(), epoch }
    }))
}

/// Starts a job of a queue without leases. False when it is not this worker's any more.
///
/// # Errors
/// The database did not answer.
pub async fn start(db: impl PgExecutor<'_>, job: &Job) -> Result<bool, sqlx::Error> {
    let started = sqlx::query!(
        "update apalis.jobs set status = 'Running', lock_at = now()
         where id = $1 and lock_by = $2 and attempts = $3 and status = 'Queued'",
        job.id,
        job.worker,
        job.attempt - 1,
    )
    .execute(db)
    .await?;
    Ok(started.rows_affected() == 1)
}
