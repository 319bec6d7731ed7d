//! Claim: the start of an attempt. Takes the relay's lease and frees the key of its waiting job, if
//! the relay's zooid instance may be called now.

use std::{collections::HashMap, time::Duration};

use sqlx::{PgExecutor, PgPool};

use super::{
    Job, hold,
    instance::{self, Instances},
};
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
    /// The instance's breaker is open: the job was put back.
    Held,
    /// As many calls as may are in flight, or the relay's row is locked by a transaction: the job is
    /// fetched still, and the claim may be asked again.
    Later,
}

/// A claim that is asked for.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The fetched job.
    pub job: Job,
    /// The relay that it names.
    pub relay_id: RelayId,
}

/// Claims fetched jobs of `sync-relay`: each becomes `Running`, its key is free for the next
/// mutation, and its relay's lease is its own for `lease_for`, if its zooid instance may be called.
/// Answers in the order asked.
///
/// Many in one transaction share its cost; each is still claimed or not by itself. The instances'
/// rows are locked first, so that processes count the calls in flight one after the other; nothing
/// is waited for while they are held.
///
/// # Errors
/// The database did not answer; then the jobs are still `Queued`, or are rescued.
pub async fn claim(
    db: &PgPool,
    requests: &[ClaimRequest],
    lease_for: Duration,
    instances: &Instances,
) -> Result<Vec<Claim>, sqlx::Error> {
    let mut leases = lease(db, requests, lease_for, instances).await?;
    let without: Vec<&ClaimRequest> =
        requests.iter().filter(|request| !leases.contains_key(&request.job.id)).collect();
    let mut reasons =
        if without.is_empty() { HashMap::new() } else { reasons(db, &without, instances).await? };
    let answer = |request: &ClaimRequest| match leases.remove(&request.job.id) {
        Some(lease) => Claim::Ready(Box::new(lease)),
        None => reasons.remove(&request.job.id).unwrap_or(Claim::Lost),
    };
    Ok(requests.iter().map(answer).collect())
}

/// A column of the requests.
fn column<'a>(
    requests: impl IntoIterator<Item = &'a ClaimRequest>,
    text: fn(&ClaimRequest) -> &str,
) -> Vec<String> {
    requests.into_iter().map(|request| text(request).to_owned()).collect()
}

/// The leases taken, by job.
async fn lease(
    db: &PgPool,
    requests: &[ClaimRequest],
    lease_for: Duration,
    instances: &Instances,
) -> Result<HashMap<String, Lease>, sqlx::Error> {
    let spent: Vec<i32> = requests.iter().map(|request| request.job.attempt - 1).collect();
    let (domains, named): (Vec<String>, Vec<String>) =
        instances.by_domain.iter().map(|(domain, name)| (domain.clone(), name.clone())).unzip();
    let rows = relay_query!(
        "",
        "from claim_relays($1, $2, $3, $4, $5, $6, $7, $8, $9) relay",
        &column(requests, |request| &request.job.id),
        &column(requests, |request| &request.job.worker),
        &spent,
        &column(requests, |request| request.relay_id.as_str()),
        lease_for.as_secs_f64(),
        &domains,
        &named,
        instances.default,
        instances.max_in_flight,
    )
    .fetch_all(db)
    .await?;
    let lease = |row: RelayRow| {
        let (job_id, epoch) = (row.lease_job.clone()?, row.lease_epoch);
        Some((job_id, Lease { relay: row.into(), epoch }))
    };
    Ok(rows.into_iter().filter_map(lease).collect())
}

/// Why claims took no lease, by job; those that an open breaker stops are put back. Read after the
/// fact, and all of them are safe to act on.
async fn reasons(
    db: &PgPool,
    without: &[&ClaimRequest],
    instances: &Instances,
) -> Result<HashMap<String, Claim>, sqlx::Error> {
    let found = sqlx::query!(
        r#"select job.id, job.status, relay.synced as "synced?", relay.zooid_domain as "domain?"
           from unnest($1::text[], $2::text[], $3::text[]) as asked (job_id, worker, relay_id)
           join apalis.jobs job on job.id = asked.job_id and job.lock_by = asked.worker
           left join relay on relay.id = asked.relay_id
           where job.status in ('Queued', 'Running')"#,
        &column(without.iter().copied(), |request| &request.job.id),
        &column(without.iter().copied(), |request| &request.job.worker),
        &column(without.iter().copied(), |request| request.relay_id.as_str()),
    )
    .fetch_all(db)
    .await?;
    let closed_for = instance::closed_for(db, instances).await?;
    let mut claims = HashMap::new();
    let mut held: HashMap<&str, Vec<String>> = HashMap::new();
    for row in found {
        let instance = row.domain.as_deref().map(|domain| instances.of(domain));
        let is_held = instance.filter(|name| closed_for.contains_key(*name));
        let claim = match (row.status.as_str(), row.synced, is_held) {
            ("Running", None, _) => Claim::Gone,
            ("Running", Some(true), _) => Claim::InStep,
            ("Running", Some(false), _) => Claim::Busy,
            (_, _, Some(name)) => {
                held.entry(name).or_default().push(row.id.clone());
                Claim::Held
            }
            _ => Claim::Later,
        };
        claims.insert(row.id, claim);
    }
    for (name, job_ids) in held {
        hold::hold(db, name, &job_ids, closed_for.get(name).copied().unwrap_or_default()).await?;
    }
    Ok(claims)
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
