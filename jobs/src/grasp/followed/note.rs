//! What a session stores about the relay that it holds.

use std::time::Duration;

use sqlx::PgExecutor;

use super::Lease;
use crate::queue::{Settled, one_line};

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

/// Stores whether everything confirmed is verified and followed live. The relay is then in step, unless
/// something wanted is not confirmed (`grasp_step` in the schema), and everything up to now has been offered to
/// us, unless an item is not confirmed whose refusal by the relay is not recorded (`grasp_lacks`).
pub async fn note_verified(
    db: impl PgExecutor<'_>,
    lease: Lease,
    is_verified: bool,
) -> Result<Settled<()>, sqlx::Error> {
    let noted = sqlx::query!(
        "update grasp_relay
         set verified = $3, status = grasp_step($3, id),
             status_at = case when status = grasp_step($3, id) then status_at else now() end,
             last_good_at = case when $3 and grasp_lacks(id) <> 'unproven' then now() else last_good_at end,
             resync_due_at = coalesce(resync_due_at, now() + (23 + 2 * random()) * interval '1 hour')
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
        is_verified,
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

/// The live subscriptions of a relay.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Subscriptions {
    /// Those that the relay has confirmed.
    pub open: usize,
    /// Those that the relay ended or did not confirm.
    pub closed: usize,
    /// Why the first of these was closed, in the relay's words.
    pub closed_reason: Option<String>,
    /// Filters beyond the relay's limit, which are polled instead.
    pub overflow: usize,
}

/// Stores the number of live subscriptions.
pub async fn note_subscriptions(
    db: impl PgExecutor<'_>,
    lease: Lease,
    of: &Subscriptions,
) -> Result<Settled<()>, sqlx::Error> {
    let number = |of: usize| i32::try_from(of).unwrap_or(i32::MAX);
    let noted = sqlx::query!(
        "update grasp_relay
         set subscriptions = $3, overflow = $4, subscriptions_closed = $5, closed_reason = $6
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
        number(of.open),
        number(of.overflow),
        number(of.closed),
        of.closed_reason.as_deref().map(short),
    );
    Ok(Settled::of(noted.execute(db).await?.rows_affected()))
}

/// Returns a remote text as one line of at most 200 bytes.
fn short(text: &str) -> String {
    let mut line = one_line(text);
    line.truncate(line.floor_char_boundary(200));
    line
}

/// Refused requests since the relay's last success.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Refusals {
    /// How many.
    pub count: u32,
    /// In how long the next request of the kind may begin; `None` if any may.
    pub probe_in: Option<Duration>,
}

impl Refusals {
    /// From a row. A time that has passed is zero.
    pub(super) fn of(count: i32, probe_in: Option<f64>) -> Self {
        let wait = |seconds| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Self { count: count.try_into().unwrap_or(0), probe_in: probe_in.map(wait) }
    }
}

/// Stores the requests that the relay refused: all, and those that were the first refusals of their items.
pub async fn note_refusals(
    db: impl PgExecutor<'_>,
    lease: Lease,
    all: Refusals,
    first: Refusals,
) -> Result<Settled<()>, sqlx::Error> {
    let count = |of: Refusals| i32::try_from(of.count).unwrap_or(i32::MAX);
    let seconds = |of: Refusals| of.probe_in.map(|wait| wait.as_secs_f64());
    let noted = sqlx::query!(
        "update grasp_relay
         set refusals = $3, probe_at = now() + make_interval(secs => $4),
             first_refusals = $5, first_probe_at = now() + make_interval(secs => $6)
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
        count(all),
        seconds(all),
        count(first),
        seconds(first),
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
/// the verification has found; `None` if nothing was followed live before it. `unverified` says why nothing could
/// be verified; `None` if something was. The next one is due after `next`.
pub async fn resynced(
    db: impl PgExecutor<'_>,
    lease: Lease,
    drift: Option<i64>,
    unverified: Option<&str>,
    next: Duration,
) -> Result<Settled<()>, sqlx::Error> {
    let noted = sqlx::query!(
        "update grasp_relay
         set resynced_at = case when $5::text is null then now() else resynced_at end, resync_note = $5,
             resync_due_at = now() + make_interval(secs => $4),
             drift_last = coalesce($3, drift_last), drift_total = drift_total + coalesce($3, 0)
         where id = $1 and lease_epoch = $2 and lease_until > now()",
        lease.relay,
        lease.epoch,
        drift,
        next.as_secs_f64(),
        unverified.map(one_line),
    );
    Ok(Settled::of(noted.execute(db).await?.rows_affected()))
}
