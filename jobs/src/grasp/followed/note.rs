//! What a session stores about the relay that it holds.

use std::time::Duration;

use sqlx::PgExecutor;

use super::{Lease, Status};
use crate::queue::Settled;

/// Stores that the connection is open.
pub async fn connected(db: impl PgExecutor<'_>, lease: Lease) -> Result<Settled<()>, sqlx::Error> {
    let noted = sqlx::query!(
        "update grasp_relay
         set status = 'catching_up', status_at = now(), connected_at = now(), connects = connects + 1
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
    );
    Ok(Settled::of(noted.execute(db).await?.rows_affected()))
}

/// Stores whether everything confirmed is verified and followed. In step, everything up to now has been
/// offered to us.
pub async fn note_status(
    db: impl PgExecutor<'_>,
    lease: Lease,
    status: Status,
) -> Result<Settled<()>, sqlx::Error> {
    let noted = sqlx::query!(
        "update grasp_relay
         set status = $3, status_at = case when status = $3 then status_at else now() end,
             last_good_at = case when $3 = 'in_step' then now() else last_good_at end,
             resync_due_at = coalesce(resync_due_at, now() + (23 + 2 * random()) * interval '1 hour')
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
        status.as_str(),
    );
    Ok(Settled::of(noted.execute(db).await?.rows_affected()))
}

/// Stores that the relay has recovered: its connection lasted, or a batch was completed.
pub async fn good(db: impl PgExecutor<'_>, lease: Lease) -> Result<Settled<()>, sqlx::Error> {
    let noted = sqlx::query!(
        "update grasp_relay
         set failures = 0, failing_since = null, fault = null, fault_since = null, next_attempt_at = now()
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
    );
    Ok(Settled::of(noted.execute(db).await?.rows_affected()))
}

/// Stores the number of open subscriptions, and of filters that are polled instead.
pub async fn note_subscriptions(
    db: impl PgExecutor<'_>,
    lease: Lease,
    open: usize,
    overflow: usize,
) -> Result<Settled<()>, sqlx::Error> {
    let number = |of: usize| i32::try_from(of).unwrap_or(i32::MAX);
    let noted = sqlx::query!(
        "update grasp_relay set subscriptions = $3, overflow = $4
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
        number(open),
        number(overflow),
    );
    Ok(Settled::of(noted.execute(db).await?.rows_affected()))
}

/// Adds events that came by live subscriptions to the counters of the relay.
pub async fn count(
    db: impl PgExecutor<'_>,
    lease: Lease,
    received: i64,
    stored: i64,
) -> Result<Settled<()>, sqlx::Error> {
    let noted = sqlx::query!(
        "update grasp_relay set received = received + $3, stored = stored + $4
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
        received,
        stored,
    );
    Ok(Settled::of(noted.execute(db).await?.rows_affected()))
}

/// Stores the end of a verification of everything confirmed. `drift` is the number of events that only
/// the verification has found; `None` if nothing was followed live before it. The next one is due after
/// `next`.
pub async fn resynced(
    db: impl PgExecutor<'_>,
    lease: Lease,
    drift: Option<i64>,
    next: Duration,
) -> Result<Settled<()>, sqlx::Error> {
    let noted = sqlx::query!(
        "update grasp_relay
         set resynced_at = now(), resync_due_at = now() + make_interval(secs => $4),
             drift_last = coalesce($3, drift_last), drift_total = drift_total + coalesce($3, 0)
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
        drift,
        next.as_secs_f64(),
    );
    Ok(Settled::of(noted.execute(db).await?.rows_affected()))
}
