//! The end of a deletion: zooid has no relay with this id any more, so its row goes too. Its activity
//! stays.

use std::time::Duration;

use sqlx::{PgConnection, PgPool};

use super::{
    Attempt, Completed, Lease,
    activity::{self, ActivityType},
    breaker, hold,
    instance::Instances,
    settle::{detail_of, gone},
};
use crate::queue::{self, Job, Requeue, Settled};

/// Settles an attempt after which zooid has no such relay. Deletes the relay's row, which frees its host,
/// unless zooid may still apply an earlier call, which could bring the relay back: then the job waits until
/// it can delete once more.
///
/// # Errors
/// See [`provision`](super). Asking again is harmless, because every write is guarded.
pub async fn delete_done(
    db: &PgPool,
    job: &Job,
    lease: &Lease,
    attempt: &Attempt,
    instances: &Instances,
) -> Result<Completed, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let Some(held) = lock(&mut tx, job, lease, instances).await? else {
        return Ok(if gone_meanwhile(&mut tx, lease).await? && gone(&mut *tx, job).await? {
            tx.commit().await?;
            Completed::Gone
        } else {
            Completed::LeaseLost
        });
    };
    let settled = match held.open_for {
        Some(wait) => wait_for_late_calls(&mut tx, job, lease, wait).await?,
        None => delete(&mut tx, job, lease, attempt).await?,
    };
    if settled == Settled::LeaseLost {
        return Ok(Completed::LeaseLost);
    }
    let instance = instances.of(&lease.relay.zooid_domain);
    let answered = breaker::record_answer(&mut tx, instance).await?;
    tx.commit().await?;
    // The outcome is stored; the next round of `release_waiting` releases the rest.
    let mut released = None;
    if let Some(relays) = answered {
        released = hold::release(db, &relays).await.ok();
    }
    let _the_next_round_does_it = hold::release_hosts(db).await;
    Ok(Completed::Written { in_step: held.open_for.is_none(), latency: held.latency, released })
}

struct Held {
    /// The time for which an earlier call may still land; `None` if none may.
    open_for: Option<Duration>,
    latency: Duration,
}

async fn lock(
    tx: &mut PgConnection,
    job: &Job,
    lease: &Lease,
    instances: &Instances,
) -> Result<Option<Held>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select case when confirm_at > lease_until - make_interval(secs => $4)
                       then greatest(extract(epoch from confirm_at - now()), 0)::float8 end as open_for,
                  greatest(extract(epoch from now() - updated_at), 0)::float8 as "latency!"
           from relay
           where id = $1 and lease_job = $2 and lease_epoch = $3 and status = 'deleting'
           for update"#,
        lease.relay.id.as_str(),
        job.id,
        lease.epoch,
        instances.lease().as_secs_f64(),
    )
    .fetch_optional(tx)
    .await?;
    Ok(row.map(|row| Held {
        open_for: row.open_for.map(Duration::from_secs_f64),
        latency: Duration::from_secs_f64(row.latency),
    }))
}

async fn gone_meanwhile(tx: &mut PgConnection, lease: &Lease) -> Result<bool, sqlx::Error> {
    let id = lease.relay.id.as_str();
    sqlx::query_scalar!(r#"select not exists (select from relay where id = $1) as "gone!""#, id)
        .fetch_one(tx)
        .await
}

async fn wait_for_late_calls(
    tx: &mut PgConnection,
    job: &Job,
    lease: &Lease,
    wait: Duration,
) -> Result<Settled<()>, sqlx::Error> {
    sqlx::query!(
        "update relay
         set sync_error = '', failure_kind = null, attempts = 0, retry_at = confirm_at,
             exhausted_at = null, outage_instance = null,
             lease_owner = null, lease_job = null, lease_until = null
         where id = $1",
        lease.relay.id.as_str(),
    )
    .execute(&mut *tx)
    .await?;
    Ok(queue::requeue(tx, job, &Requeue::wait(wait)).await?.map(|_| ()))
}

async fn delete(
    tx: &mut PgConnection,
    job: &Job,
    lease: &Lease,
    attempt: &Attempt,
) -> Result<Settled<()>, sqlx::Error> {
    let relay = &lease.relay;
    sqlx::query!("delete from relay where id = $1", relay.id.as_str()).execute(&mut *tx).await?;
    let detail = detail_of(job, relay.generation, attempt);
    let completed = ActivityType::CompleteRelaySync;
    activity::append(tx, &relay.id, &relay.tenant_pubkey, completed, &detail).await?;
    queue::finish(tx, job, &serde_json::json!("deleted")).await
}
