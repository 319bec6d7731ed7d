//! Failing: settles an attempt that did not succeed. [`super::plan`] decides; `write` writes the rows.

mod write;

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::{PgConnection, PgPool};

use super::{
    Attempt, BreakerPolicy, Failure, Lease, Reached, SYNC_RELAY, Verdict,
    activity::{self, ActivityType},
    backoff::Backoff,
    breaker::{self, Outage},
    hold,
    instance::Instances,
    job,
    plan::Plan,
    relay::RelayId,
    settle::{detail_of, gone},
};
use crate::queue::{Job, Settled};

/// The rules by which a failure is settled.
#[derive(Debug, Clone, Copy)]
pub struct Rules<'a> {
    /// When a failed attempt is retried.
    pub backoff: &'a Backoff,
    /// When an instance's breaker opens.
    pub breaker: &'a BreakerPolicy,
    /// Which instance serves which domain.
    pub instances: &'a Instances,
}

/// Settles a failed attempt in one transaction: the relay, its activity, the instance's breaker and the
/// job's row. Without a lease (the attempt died before it had one) only the job's guard applies. If the
/// relay's row was deleted, the job ends.
///
/// # Errors
/// See [`provision`](super). Asking again is harmless, because every write is guarded.
pub async fn fail(
    db: &PgPool,
    job: &Job,
    relay_id: &RelayId,
    lease: Option<&Lease>,
    attempt: &Attempt,
    failure: &Failure,
    rules: Rules<'_>,
) -> Result<Settled<Verdict>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let held = match lock_relay(&mut tx, job, relay_id, lease).await? {
        Locked::Held(held) => held,
        Locked::Lost => return Ok(Settled::LeaseLost),
        Locked::Gone => {
            let ended = gone(&mut *tx, job).await?;
            tx.commit().await?;
            return Ok(if ended {
                Settled::Written(Verdict::Superseded)
            } else {
                Settled::LeaseLost
            });
        }
    };
    let news = tell_instance(&mut tx, job, relay_id, lease, failure, rules).await?;
    let is_current = lease.is_none_or(|lease| lease.relay.generation == held.generation);
    let plan =
        Plan::new(job, failure, rules.backoff, is_current, held.is_superseded, news.open_for);
    let instance = lease.map_or("", |lease| rules.instances.of(&lease.relay.zooid_domain));
    let written = write::job(&mut tx, job, failure, rules, plan, instance).await?;
    let Some(verdict) = written else {
        return Ok(Settled::LeaseLost);
    };
    let attempts = plan.attempts().filter(|_| is_current);
    let is_outage = verdict == Verdict::GaveUp
        && failure.reached.is_outage()
        && breaker::record_give_up(&mut tx, instance, relay_id, job.place()).await?;
    let outage = Some(instance).filter(|_| is_outage);
    write::relay(&mut tx, job, relay_id, failure, attempts, verdict, outage).await?;
    // A held job counts as not tried: it leaves no activity.
    if !matches!(verdict, Verdict::Held(_)) {
        let generation = lease.map_or(held.generation, |lease| lease.relay.generation);
        let detail = detail(job, generation, attempt, failure, verdict);
        let tenant = &held.tenant_pubkey;
        activity::append(&mut tx, relay_id, tenant, ActivityType::FailRelaySync, &detail).await?;
    }
    tx.commit().await?;
    release(db, failure, news).await;
    Ok(Settled::Written(verdict))
}

/// Releases what waited for this attempt. The outcome is stored; if this fails, the next round of
/// `release_waiting` does it.
async fn release(db: &PgPool, failure: &Failure, news: News) {
    if let Some(relays) = news.answered {
        let _the_next_round_does_it = hold::release(db, &relays).await;
    }
    if failure.conflict.as_ref().is_some_and(|conflict| conflict.has_moved_away) {
        let _the_next_round_does_it = hold::release_hosts(db).await;
    }
}

/// The detail of the activity.
fn detail(
    job: &Job,
    generation: i64,
    attempt: &Attempt,
    failure: &Failure,
    verdict: Verdict,
) -> Value {
    let mut detail = detail_of(job, generation, attempt);
    detail["error"] = json!(failure.message);
    detail["status"] = json!(failure.status);
    detail["kind"] = json!(failure.kind);
    detail["retry_at"] = json!(verdict.retry_at().map(|at| at.timestamp()));
    if verdict == Verdict::Superseded {
        detail["superseded"] = json!(true);
    }
    detail
}

/// How a failure changed its instance's breaker.
#[derive(Default)]
struct News {
    /// The breaker is open: the time until the next probe.
    open_for: Option<Duration>,
    /// The instance answered, and jobs waited for it: the relays whose calls had failed.
    answered: Option<Vec<RelayId>>,
}

async fn tell_instance(
    tx: &mut PgConnection,
    job: &Job,
    relay_id: &RelayId,
    lease: Option<&Lease>,
    failure: &Failure,
    rules: Rules<'_>,
) -> Result<News, sqlx::Error> {
    let Some(lease) = lease.filter(|_| failure.reached != Reached::NotCalled) else {
        return Ok(News::default());
    };
    let name = rules.instances.of(&lease.relay.zooid_domain);
    if !failure.reached.is_outage() {
        let answered = breaker::record_answer(tx, name).await?;
        if failure.is_overload() {
            breaker::record_overload(tx, name, rules.instances).await?;
        }
        return Ok(News { answered, open_for: None });
    }
    let last = rules.backoff.max_attempts();
    let outage = Outage {
        instance: name,
        relay_id,
        job_id: &job.id,
        is_last_attempt: u32::try_from(job.place()).is_ok_and(|attempt| attempt >= last),
        is_refusal: failure.reached == Reached::RefusedKey,
        error: &failure.message,
    };
    let open_for = breaker::record_outage(tx, &outage, rules.breaker).await?;
    if failure.is_overload() {
        breaker::record_overload(tx, name, rules.instances).await?;
    }
    Ok(News { open_for, answered: None })
}

/// The relay of a failed attempt.
enum Locked {
    Held(Held),
    /// The lease belongs to another attempt now.
    Lost,
    /// The relay's row was deleted.
    Gone,
}

struct Held {
    tenant_pubkey: String,
    generation: i64,
    /// A newer job waits, or the newer state was cancelled.
    is_superseded: bool,
}

/// Locks the relay if the lease still belongs to this attempt. A separate statement looks for a newer
/// job, because one may have been committed while the first waited for the lock.
async fn lock_relay(
    tx: &mut PgConnection,
    job: &Job,
    relay_id: &RelayId,
    lease: Option<&Lease>,
) -> Result<Locked, sqlx::Error> {
    let relay = sqlx::query!(
        r#"select tenant_pubkey, generation, exhausted_at is not null as "is_exhausted!",
                  ($2::bigint is null or coalesce(lease_epoch = $2 and lease_job = $3, false)) as "is_ours!"
           from relay where id = $1 for update"#,
        relay_id.as_str(),
        lease.map(|lease| lease.epoch),
        job.id,
    )
    .fetch_optional(&mut *tx)
    .await?;
    let relay = match relay {
        None => return Ok(Locked::Gone),
        Some(relay) if !relay.is_ours => return Ok(Locked::Lost),
        Some(relay) => relay,
    };
    let has_newer_job = sqlx::query_scalar!(
        r#"select exists (select from apalis.jobs
                          where job_type = $1 and idempotency_key = $2 and id <> $3) as "waits!""#,
        SYNC_RELAY,
        job::key(relay_id),
        job.id,
    )
    .fetch_one(tx)
    .await?;
    let is_cancelled =
        relay.is_exhausted && lease.is_some_and(|l| l.relay.generation < relay.generation);
    let (tenant_pubkey, generation) = (relay.tenant_pubkey, relay.generation);
    let is_superseded = has_newer_job || is_cancelled;
    Ok(Locked::Held(Held { tenant_pubkey, generation, is_superseded }))
}
