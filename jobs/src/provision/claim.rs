//! Claiming: the start of an attempt. A claim takes the relay's lease and frees the job's key, if the
//! relay's zooid instance may be called now.

use std::collections::HashMap;

use sqlx::{PgExecutor, PgPool};

use super::{
    breaker, hold,
    instance::Instances,
    relay::{Relay, RelayId, RelayRow, relay_query},
};
use crate::queue::{Guard, Job};

/// The right to call zooid for a relay, and the relay as it was when the right was taken.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The wanted state, at the generation that this attempt carries.
    pub relay: Relay,
    /// Fences the settle: a later lease has a higher epoch.
    pub epoch: i64,
}

/// The result of a claim.
#[derive(Debug)]
pub enum Claim {
    /// This worker holds the lease for [`Instances::lease`].
    Ready(Box<Lease>),
    /// The job was rescued or removed; this worker must not write about it.
    Lost,
    /// The relay does not exist.
    Gone,
    /// zooid has the wanted state already.
    InStep,
    /// The relay gave up, or an operator cancelled its job; it waits for a change or a retry.
    GaveUp,
    /// Another job holds the lease.
    Busy,
    /// The instance's breaker is open; the job was put back.
    Held,
    /// The limit of calls in flight is reached, or a transaction holds the relay's row. The job is still
    /// fetched, and the claim may be asked again.
    Later,
}

/// A request for a claim.
#[derive(Debug, Clone)]
pub struct ClaimRequest {
    /// The fetched job.
    pub job: Job,
    /// The relay that it names.
    pub relay_id: RelayId,
}

/// Claims fetched jobs of `sync-relay`. A claimed job is `Running`, its key is free for the next
/// mutation, and it holds the lease of its relay. Returns the results in the order of `requests`.
///
/// Claims in one call share a transaction; each is still granted or refused by itself. The rows of the
/// instances are locked first, so that processes count the calls in flight one after the other; the
/// statement waits for nothing while it holds them.
///
/// # Errors
/// See [`provision`](super). The jobs are still `Queued`, or will be rescued.
pub async fn claim(
    db: &PgPool,
    requests: &[ClaimRequest],
    instances: &Instances,
) -> Result<Vec<Claim>, sqlx::Error> {
    let mut leases = lease(db, requests, instances).await?;
    let without: Vec<&ClaimRequest> =
        requests.iter().filter(|request| !leases.contains_key(&request.job.id)).collect();
    let mut reasons = match reasons(db, &without, instances).await {
        Ok(reasons) => Some(reasons),
        Err(error) if leases.is_empty() => return Err(error),
        Err(_) => None, // the granted leases must not be lost with it; the others ask again
    };
    let answer = |request: &ClaimRequest| match (leases.remove(&request.job.id), &mut reasons) {
        (Some(lease), _) => Claim::Ready(Box::new(lease)),
        (None, Some(reasons)) => reasons.remove(&request.job.id).unwrap_or(Claim::Lost),
        (None, None) => Claim::Later,
    };
    Ok(requests.iter().map(answer).collect())
}

/// Collects a column of the requests.
fn column<'a>(
    requests: impl IntoIterator<Item = &'a ClaimRequest>,
    text: fn(&ClaimRequest) -> &str,
) -> Vec<String> {
    requests.into_iter().map(|request| text(request).to_owned()).collect()
}

/// Takes leases, and returns them by job id.
async fn lease(
    db: &PgPool,
    requests: &[ClaimRequest],
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
        instances.lease().as_secs_f64(),
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

/// Returns why claims took no lease, by job id, and puts back the jobs that an open breaker stops. The
/// reasons are read after the fact; acting on an outdated one is harmless.
async fn reasons(
    db: &PgPool,
    without: &[&ClaimRequest],
    instances: &Instances,
) -> Result<HashMap<String, Claim>, sqlx::Error> {
    if without.is_empty() {
        return Ok(HashMap::new());
    }
    let found = sqlx::query!(
        r#"select job.id, job.status, relay.synced as "synced?", relay.zooid_domain as "domain?",
                  relay.exhausted_at is not null as "is_exhausted!"
           from unnest($1::text[], $2::text[], $3::text[]) as asked (job_id, worker, relay_id)
           join apalis.jobs job on job.id = asked.job_id and coalesce(job.lock_by, '') = asked.worker
           left join relay on relay.id = asked.relay_id
           where coalesce(job.status, '') in ('Queued', 'Running')"#,
        &column(without.iter().copied(), |request| &request.job.id),
        &column(without.iter().copied(), |request| &request.job.worker),
        &column(without.iter().copied(), |request| request.relay_id.as_str()),
    )
    .fetch_all(db)
    .await?;
    let closed_for = breaker::closed_for(db, instances).await?;
    let mut claims = HashMap::new();
    let mut held: HashMap<&str, Vec<Guard>> = HashMap::new();
    let jobs: HashMap<&str, &Job> =
        without.iter().map(|request| (request.job.id.as_str(), &request.job)).collect();
    for row in found {
        let instance = row.domain.as_deref().map(|domain| instances.of(domain));
        let is_held = instance.filter(|name| closed_for.contains_key(*name));
        let claim = match (row.status.as_str(), row.synced, is_held) {
            ("Running", None, _) => Claim::Gone,
            ("Running", Some(true), _) => Claim::InStep,
            ("Running", Some(false), _) if row.is_exhausted => Claim::GaveUp,
            ("Running", Some(false), _) => Claim::Busy,
            (_, _, Some(name)) => {
                let guard = jobs.get(row.id.as_str()).map(|job| Guard::from(*job).unstarted());
                held.entry(name).or_default().extend(guard);
                Claim::Held
            }
            _ => Claim::Later,
        };
        claims.insert(row.id, claim);
    }
    for (name, fetched) in held {
        hold::hold(db, name, &fetched, closed_for.get(name).copied().unwrap_or_default()).await?;
    }
    Ok(claims)
}

/// Returns the lease that a job holds, if any. Used after a panic, and after a claim whose answer was
/// lost.
///
/// # Errors
/// See [`provision`](super).
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

/// Whether a job still holds its lease. Asked before a second request to zooid, which must not come
/// after a successor's request.
///
/// # Errors
/// See [`provision`](super).
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
