//! Claim: the start of an attempt. Takes the relay's lease and frees the key of its waiting job, if
//! the relay's zooid instance may be called now.

use std::{collections::HashMap, time::Duration};

use sqlx::{PgConnection, PgExecutor, PgPool};

use super::{
    Job, hold,
    instance::{self, Gate, Instances},
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
/// mutation, and its relay's lease is its own for `lease_for`. Answers in the order asked.
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
    let mut tx = db.begin().await?;
    // The arrays' lengths do not matter to the plan; and see `instance::gates` on durability.
    sqlx::query!(
        r#"select set_config('synchronous_commit', 'off', true) as "a!",
                  set_config('plan_cache_mode', 'force_generic_plan', true) as "b!""#
    )
    .fetch_one(&mut *tx)
    .await?;
    let gates = instance::gates(&mut tx, instances).await?;
    let mut leases = lease(&mut tx, requests, lease_for, instances, &gates).await?;
    for (job_id, lease) in &leases {
        let instance = instances.of(&lease.relay.zooid_domain);
        if gates.iter().any(|gate| gate.name == instance && gate.is_half_open) {
            instance::begin_probe(&mut tx, instance, job_id, lease_for).await?;
        }
    }
    let mut reasons = reasons(&mut tx, requests, &leases, instances, &gates).await?;
    tx.commit().await?;
    let answer = |request: &ClaimRequest| match leases.remove(&request.job.id) {
        Some(lease) => Claim::Ready(Box::new(lease)),
        None => reasons.remove(&request.job.id).unwrap_or(Claim::Lost),
    };
    Ok(requests.iter().map(answer).collect())
}

/// A column of the requests.
fn column(requests: &[ClaimRequest], text: fn(&ClaimRequest) -> &str) -> Vec<String> {
    requests.iter().map(|request| text(request).to_owned()).collect()
}

/// The leases taken, by job. Relays that somebody has locked are left for later.
async fn lease(
    tx: &mut PgConnection,
    requests: &[ClaimRequest],
    lease_for: Duration,
    instances: &Instances,
    gates: &[Gate],
) -> Result<HashMap<String, Lease>, sqlx::Error> {
    let attempts: Vec<i32> = requests.iter().map(|request| request.job.attempt - 1).collect();
    let (domains, named): (Vec<String>, Vec<String>) =
        instances.by_domain.iter().map(|(domain, name)| (domain.clone(), name.clone())).unzip();
    let (gate_names, permits): (Vec<String>, Vec<i32>) =
        gates.iter().map(|gate| (gate.name.clone(), gate.permits)).unzip();
    let rows = relay_query!(
        "with asked as (
            select * from unnest($1::text[], $2::text[], $3::int[], $4::text[]) with ordinality
                as asked (job_id, worker, attempts, relay_id, place)
        ), held as materialized (
            select relay.id, synced, coalesce(served.instance, $8) as instance,
                   not synced and (lease_until is null or lease_until <= now()) as is_to_call
            from relay
            left join unnest($6::text[], $7::text[]) as served (domain, instance)
                on served.domain = relay.zooid_domain
            where relay.id = any($4)
            order by relay.id
            for update of relay skip locked
        ), ranked as (
            select asked.*, held.instance, held.is_to_call,
                   row_number() over (partition by held.instance, held.is_to_call order by place) as rank
            from asked join held on held.id = asked.relay_id
        ), startable as (
            select ranked.* from ranked
            left join unnest($9::text[], $10::int[]) as gate (instance, permits)
                on gate.instance = ranked.instance
            where not is_to_call or rank <= gate.permits
            union all
            select asked.*, null, false, 0 from asked
            where not exists (select from relay where relay.id = asked.relay_id)
        ), job as (
            update apalis.jobs job
            set status = 'Running', idempotency_key = null, lock_at = now(),
                metadata = case when startable.is_to_call
                                then hstore('instance', startable.instance) else ''::hstore end
            from startable
            where job.id = startable.job_id and job.lock_by = startable.worker
              and job.attempts = startable.attempts and job.status = 'Queued'
            returning job.id, startable.worker, startable.relay_id, startable.is_to_call
        ), relay as (
            update relay
            set lease_owner = job.worker, lease_job = job.id, lease_epoch = lease_epoch + 1,
                lease_until = now() + make_interval(secs => $5)
            from job
            where relay.id = job.relay_id and job.is_to_call
            returning relay.*
        )",
        "from relay",
        &column(requests, |request| &request.job.id),
        &column(requests, |request| &request.job.worker),
        &attempts,
        &column(requests, |request| request.relay_id.as_str()),
        lease_for.as_secs_f64(),
        &domains,
        &named,
        instances.default,
        &gate_names,
        &permits,
    )
    .fetch_all(tx)
    .await?;
    let lease = |row: RelayRow| {
        let (job_id, epoch) = (row.lease_job.clone()?, row.lease_epoch);
        Some((job_id, Lease { relay: row.into(), epoch }))
    };
    Ok(rows.into_iter().filter_map(lease).collect())
}

/// Why claims took no lease, by job; those that an open breaker stopped are put back here.
async fn reasons(
    tx: &mut PgConnection,
    requests: &[ClaimRequest],
    leases: &HashMap<String, Lease>,
    instances: &Instances,
    gates: &[Gate],
) -> Result<HashMap<String, Claim>, sqlx::Error> {
    let without: Vec<ClaimRequest> =
        requests.iter().filter(|request| !leases.contains_key(&request.job.id)).cloned().collect();
    if without.is_empty() {
        return Ok(HashMap::new());
    }
    let found = sqlx::query!(
        r#"select job.id, job.status, relay.synced as "synced?", relay.zooid_domain as "domain?"
           from unnest($1::text[], $2::text[], $3::text[]) as asked (job_id, worker, relay_id)
           join apalis.jobs job on job.id = asked.job_id and job.lock_by = asked.worker
           left join relay on relay.id = asked.relay_id
           where job.status in ('Queued', 'Running')"#,
        &column(&without, |request| &request.job.id),
        &column(&without, |request| &request.job.worker),
        &column(&without, |request| request.relay_id.as_str()),
    )
    .fetch_all(&mut *tx)
    .await?;
    let mut claims = HashMap::new();
    let mut held: HashMap<&str, Vec<String>> = HashMap::new();
    for row in found {
        let gate = row.domain.as_deref().and_then(|domain| {
            let name = instances.of(domain);
            gates.iter().find(|gate| gate.name == name)
        });
        let is_held = gate.filter(|gate| gate.closed_for.is_some());
        claims.insert(
            row.id.clone(),
            match (row.status.as_str(), row.synced, is_held) {
                ("Running", None, _) => Claim::Gone,
                ("Running", Some(true), _) => Claim::InStep,
                ("Running", Some(false), _) => Claim::Busy,
                (_, _, Some(gate)) => {
                    held.entry(&gate.name).or_default().push(row.id);
                    Claim::Held
                }
                _ => Claim::Later,
            },
        );
    }
    for (name, job_ids) in held {
        let seconds = gates.iter().find(|gate| gate.name == name).and_then(|gate| gate.closed_for);
        hold::hold(tx, name, &job_ids, seconds.unwrap_or_default()).await?;
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
