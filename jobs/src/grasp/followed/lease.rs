//! How leases are kept, and how they end.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    Lease,
    health::{Failure, Fault, Health},
};
use crate::{
    grasp::batch,
    mirror::contended,
    queue::{Settled, one_line},
};

/// A lease that was renewed.
#[derive(Debug, Clone)]
pub struct Kept {
    /// The lease.
    pub lease: Lease,
    /// Whether nothing has named the relay for a minute.
    pub is_unwanted: bool,
    /// When the next verification of everything confirmed is due.
    pub resync_due_at: Option<DateTime<Utc>>,
    /// Whether it is due now.
    pub is_resync_due: bool,
}

/// Renews the leases of a process in one statement, except for those whose rows are locked:
/// [`renew_busy`] renews these. A verified relay is known good up to now, unless an item is not confirmed whose
/// refusal by the relay is not recorded.
pub async fn renew(db: &PgPool, process: &str) -> Result<Vec<Kept>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with mine as (
               select id from grasp_relay where lease_owner = $1 and lease_until > now()
               order by id for update skip locked)
           update grasp_relay r
           set lease_until = now() + make_interval(secs => $2),
               last_good_at = case when verified and grasp_lacks(r.id) <> 'unproven' then now()
                                   else last_good_at end,
               status = case when verified then grasp_step(true, r.id) else status end,
               status_at = case when verified and status <> grasp_step(true, r.id) then now() else status_at end
           from mine where r.id = mine.id
           returning r.id, r.lease_epoch, r.resync_due_at,
                     coalesce(r.unwanted_since < now() - interval '60 seconds', false) as "is_unwanted!",
                     coalesce(r.resync_due_at <= now(), false) as "is_resync_due!""#,
        process,
        super::LEASE.as_secs_f64(),
    )
    .fetch_all(db)
    .await?;
    let kept = rows.into_iter().map(|row| Kept {
        lease: Lease { relay: row.id, epoch: row.lease_epoch },
        is_unwanted: row.is_unwanted,
        resync_due_at: row.resync_due_at,
        is_resync_due: row.is_resync_due,
    });
    Ok(kept.collect())
}

/// Renews one lease, and waits for its row. Returns `None` if the lease is lost.
pub async fn renew_busy(db: &PgPool, lease: Lease) -> Result<Option<Kept>, sqlx::Error> {
    let row = sqlx::query!(
        r#"update grasp_relay
           set lease_until = now() + make_interval(secs => $3),
               last_good_at = case when verified and grasp_lacks(id) <> 'unproven' then now()
                                   else last_good_at end,
               status = case when verified then grasp_step(true, id) else status end,
               status_at = case when verified and status <> grasp_step(true, id) then now() else status_at end
           where id = $1 and lease_epoch = $2 and lease_until > now()
           returning resync_due_at,
                     coalesce(unwanted_since < now() - interval '60 seconds', false) as "is_unwanted!",
                     coalesce(resync_due_at <= now(), false) as "is_resync_due!""#,
        lease.relay,
        lease.epoch,
        super::LEASE.as_secs_f64(),
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Kept {
        lease,
        is_unwanted: row.is_unwanted,
        resync_due_at: row.resync_due_at,
        is_resync_due: row.is_resync_due,
    }))
}

/// Ends a lease after a failure of the relay. Its next attempt follows from its [`Health`].
pub async fn fail(
    db: &PgPool,
    lease: Lease,
    failure: Failure<'_>,
) -> Result<Settled<()>, sqlx::Error> {
    contended::retried(|| try_fail(db, lease, failure)).await
}

async fn try_fail(
    db: &PgPool,
    lease: Lease,
    failure: Failure<'_>,
) -> Result<Settled<()>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let Some((health, now, starts_here)) = health(&mut tx, lease).await? else {
        return Ok(Settled::LeaseLost);
    };
    let health = health.failed(now, failure, starts_here);
    sqlx::query!(
        "update grasp_relay
         set status = 'waiting', status_at = now(), lease_owner = null, lease_until = null, connected_at = null,
             subscriptions = 0, overflow = 0, subscriptions_closed = 0, closed_reason = null, failures = $2, failing_since = $3, fault = $4, fault_since = $5,
             next_attempt_at = $6, last_error = $7, last_error_at = now()
         where id = $1",
        lease.relay,
        health.failures,
        health.failing_since,
        health.fault.map(|(fault, _)| fault.as_str()),
        health.fault.map(|(_, since)| since),
        health.next_attempt_at,
        one_line(failure.error),
    )
    .execute(&mut *tx)
    .await?;
    batch::abandon(&mut tx, &[lease.relay], failure.error).await?;
    tx.commit().await?;
    Ok(Settled::Written(()))
}

/// Locks the row of a held relay, and returns its health, the database's clock, and whether a service
/// starts from it.
async fn health(
    tx: &mut PgConnection,
    lease: Lease,
) -> Result<Option<(Health, DateTime<Utc>, bool)>, sqlx::Error> {
    let row = sqlx::query!(
        r#"select failures, failing_since, fault, fault_since, next_attempt_at, limited_until, limits,
                  clock_timestamp() as "now!",
                  exists (select from grasp_bootstrap b where b.url = grasp_relay.url) as "starts_here!"
           from grasp_relay where id = $1 and lease_epoch = $2 and lease_until > now() for update"#,
        lease.relay,
        lease.epoch,
    )
    .fetch_optional(tx)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let fault = row.fault.as_deref().and_then(Fault::parse).zip(row.fault_since);
    let health = Health {
        failures: row.failures,
        failing_since: row.failing_since,
        fault,
        next_attempt_at: row.next_attempt_at,
        limited_until: row.limited_until,
        limits: row.limits,
    };
    Ok(Some((health, row.now, row.starts_here)))
}

/// Stores that a relay limits our rate. Returns for how many seconds it gets no new subscription.
pub async fn limit(db: &PgPool, lease: Lease, reason: &str) -> Result<Settled<i64>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let Some((health, now, _)) = health(&mut tx, lease).await? else {
        return Ok(Settled::LeaseLost);
    };
    if let Some(until) = health.limited_until.filter(|until| *until > now) {
        return Ok(Settled::Written((until - now).num_seconds().max(1))); // of the same pause
    }
    let health = health.limited(now);
    sqlx::query!(
        "update grasp_relay set limited_until = $2, limits = $3, last_error = $4, last_error_at = now()
         where id = $1",
        lease.relay,
        health.limited_until,
        health.limits,
        one_line(reason),
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await?;
    let pause = health.limited_until.map_or(0, |until| (until - now).num_seconds());
    Ok(Settled::Written(pause.max(1)))
}

/// Ends a lease without a failure. The relay is due at once, and what was being fetched is missing.
pub async fn release(db: &PgPool, lease: Lease, why: &str) -> Result<Settled<()>, sqlx::Error> {
    end(db, lease, why, true).await
}

/// As [`release`], for a process that has no room for the relay, which stays due since the same time: people
/// see that no process takes it.
pub async fn give_back(db: &PgPool, lease: Lease, why: &str) -> Result<Settled<()>, sqlx::Error> {
    end(db, lease, why, false).await
}

async fn end(
    db: &PgPool,
    lease: Lease,
    why: &str,
    is_due_anew: bool,
) -> Result<Settled<()>, sqlx::Error> {
    contended::retried(|| async {
        let mut tx = crate::database::begin(db).await?;
        let released = sqlx::query!(
            "update grasp_relay
             set status = 'waiting', status_at = now(), lease_owner = null, lease_until = null,
                 connected_at = null, subscriptions = 0, overflow = 0, subscriptions_closed = 0,
                 closed_reason = null, next_attempt_at = case when $3 then now() else next_attempt_at end
             where id = $1 and lease_epoch = $2 and lease_until > now()",
            lease.relay,
            lease.epoch,
            is_due_anew,
        );
        if released.execute(&mut *tx).await?.rows_affected() == 0 {
            return Ok(Settled::LeaseLost);
        }
        batch::abandon(&mut tx, &[lease.relay], why).await?;
        tx.commit().await?;
        Ok(Settled::Written(()))
    })
    .await
}

/// Ends every lease of a process that stops. Returns the number of relays.
pub async fn release_all(db: &PgPool, process: &str) -> Result<usize, sqlx::Error> {
    contended::retried(|| async {
        let mut tx = crate::database::begin(db).await?;
        let relays: Vec<Uuid> = sqlx::query_scalar!(
            "with mine as (
                 select id from grasp_relay where lease_owner = $1 order by id for update)
             update grasp_relay r
             set status = 'waiting', status_at = now(), lease_owner = null, lease_until = null,
                 connected_at = null, subscriptions = 0, overflow = 0, subscriptions_closed = 0,
                 closed_reason = null, next_attempt_at = now()
             from mine where r.id = mine.id returning r.id",
            process,
        )
        .fetch_all(&mut *tx)
        .await?;
        batch::abandon(&mut tx, &relays, "the process stopped").await?;
        tx.commit().await?;
        Ok(relays.len())
    })
    .await
}
