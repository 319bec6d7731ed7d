//! Claim: the start of an attempt. Takes the relay's lease and frees the key of its waiting job.

use std::{collections::HashMap, time::Duration};

use sqlx::{PgExecutor, PgPool};

use super::Job;
use crate::relay::{Relay, RelayId, RelayRow, relay_query};

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

/// A claim that is asked for.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The fetched job.
    pub job: Job,
    /// The relay that it names.
    pub relay_id: RelayId,
}

/// Claims fetched jobs of `sync-relay`: in one statement each becomes `Running`, its key is free for
/// the next mutation, and its relay's lease is its own for `lease_for`. Answers in the order asked.
///
/// Many in one statement share its cost and its commit; each is still claimed or not by itself.
///
/// # Errors
/// The database did not answer; then the jobs are still `Queued`, or are rescued.
pub async fn claim(
    db: &PgPool,
    requests: &[ClaimRequest],
    lease_for: Duration,
) -> Result<Vec<Claim>, sqlx::Error> {
    let mut leases = lease(db, requests, lease_for).await?;
    let mut claims = Vec::with_capacity(requests.len());
    for request in requests {
        claims.push(match leases.remove(&request.job.id) {
            Some(lease) => Claim::Ready(Box::new(lease)),
            None => why_not(db, &request.job, &request.relay_id).await?,
        });
    }
    Ok(claims)
}

/// The leases taken, by job.
async fn lease(
    db: &PgPool,
    requests: &[ClaimRequest],
    lease_for: Duration,
) -> Result<HashMap<String, Lease>, sqlx::Error> {
    let column = |text: fn(&ClaimRequest) -> &str| -> Vec<String> {
        requests.iter().map(|request| text(request).to_owned()).collect()
    };
    let attempts: Vec<i32> = requests.iter().map(|request| request.job.attempt - 1).collect();
    // `held` locks the relays before the jobs, in the order of their ids: everyone does, so nobody
    // deadlocks.
    let rows = relay_query!(
        "with asked as (
            select * from unnest($1::text[], $2::text[], $3::int[], $4::text[])
                as asked (job_id, worker, attempts, relay_id)
        ), held as materialized (
            select id, synced, lease_until from relay where id = any($4) order by id for update
        ), job as (
            update apalis.jobs job
            set status = 'Running', idempotency_key = null, lock_at = now()
            from asked
            where job.id = asked.job_id and job.lock_by = asked.worker
              and job.attempts = asked.attempts and job.status = 'Queued'
              and (select count(*) from held) >= 0
            returning job.id, asked.worker, asked.relay_id
        ), relay as (
            update relay
            set lease_owner = job.worker, lease_job = job.id, lease_epoch = lease_epoch + 1,
                lease_until = now() + make_interval(secs => $5)
            from held join job on job.relay_id = held.id
            where relay.id = held.id and not held.synced
              and (held.lease_until is null or held.lease_until <= now())
            returning relay.*
        )",
        "from relay",
        &column(|request| &request.job.id),
        &column(|request| &request.job.worker),
        &attempts,
        &column(|request| request.relay_id.as_str()),
        lease_for.as_secs_f64(),
    )
    .fetch_all(db)
    .await?;
    let lease = |row: RelayRow| {
        let (job_id, epoch) = (row.lease_job.clone()?, row.lease_epoch);
        Some((job_id, Lease { relay: row.into(), epoch }))
    };
    Ok(rows.into_iter().filter_map(lease).collect())
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

/// Whether a lease is still its job's: asked before a second request, which must not follow the
/// successor's.
///
/// # Errors
/// The database did not answer.
pub async fn is_leased(
    db: impl PgExecutor<'_>,
    job: &Job,
    lease: &Lease,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar!(
        r#"select exists (select from relay where id = $1 and lease_job = $2 and lease_epoch = $3
                          and lease_until > now()) as "is_leased!""#,
        lease.relay.id.as_str(),
        job.id,
        lease.epoch,
    )
    .fetch_one(db)
    .await
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
