//! The claim of relays that are due.

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{Lease, Refusals};
use crate::{grasp::batch, mirror::contended};

/// A relay that this process follows from now on.
#[derive(Debug, Clone)]
pub struct Claimed {
    /// The right to follow the relay.
    pub lease: Lease,
    /// Its address.
    pub url: String,
    /// The connection's row; `None` if the mirror is removing an upstream with this address.
    pub upstream: Option<Uuid>,
    /// Until when everything was offered to us; `None` if that was more than 15 minutes ago, or never.
    pub good_until: Option<DateTime<Utc>>,
    /// When the next verification of everything confirmed is due; `None` if none ever ended.
    pub resync_due_at: Option<DateTime<Utc>>,
    /// Whether it is due now.
    pub is_resync_due: bool,
    /// Every request that the relay refused since its last success.
    pub refusals: Refusals,
    /// Of these, the first refusals of their items.
    pub first_refusals: Refusals,
}

/// Claims relays that are due and that no process holds, at most `most`, the longest due first. What an
/// earlier holder was fetching is missing again. Every claimed relay gets a row for its connection.
pub async fn claim(db: &PgPool, process: &str, most: i64) -> Result<Vec<Claimed>, sqlx::Error> {
    contended::retried(|| try_claim(db, process, most)).await
}

async fn try_claim(db: &PgPool, process: &str, most: i64) -> Result<Vec<Claimed>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    let mut claimed = take(&mut tx, process, most).await?;
    if claimed.is_empty() {
        return Ok(claimed);
    }
    let relays: Vec<Uuid> = claimed.iter().map(|one| one.lease.relay).collect();
    batch::abandon(&mut tx, &relays, "the process that fetched it lost the relay").await?;
    ensure_upstreams(&mut tx, &mut claimed).await?;
    tx.commit().await?;
    Ok(claimed)
}

async fn take(
    tx: &mut PgConnection,
    process: &str,
    most: i64,
) -> Result<Vec<Claimed>, sqlx::Error> {
    let rows = sqlx::query!(
        r#"with due as (
               select id from grasp_relay
               where next_attempt_at <= now() and coalesce(lease_until < now(), true)
                 and coalesce(limited_until <= now(), true) and unwanted_since is null
               order by next_attempt_at, id limit $2 for update skip locked)
           update grasp_relay r
           set lease_owner = $1, lease_until = now() + make_interval(secs => $3), lease_epoch = lease_epoch + 1,
               status = 'connecting', status_at = now(), connected_at = null, attempts = attempts + 1,
               subscriptions = 0, overflow = 0, subscriptions_closed = 0, closed_reason = null, verified = false
           from due where r.id = due.id
           returning r.id, r.lease_epoch, r.url, r.resync_due_at, r.refusals, r.first_refusals,
                     extract(epoch from r.probe_at - now())::float8 as probe_in,
                     extract(epoch from r.first_probe_at - now())::float8 as first_probe_in,
                     coalesce(r.resync_due_at <= now(), false) as "is_resync_due!",
                     case when r.last_good_at > now() - interval '15 minutes' then r.last_good_at end as good_until"#,
        process,
        most,
        super::LEASE.as_secs_f64(),
    )
    .fetch_all(tx)
    .await?;
    let claimed = rows.into_iter().map(|row| Claimed {
        lease: Lease { relay: row.id, epoch: row.lease_epoch },
        url: row.url,
        upstream: None,
        good_until: row.good_until,
        resync_due_at: row.resync_due_at,
        is_resync_due: row.is_resync_due,
        refusals: Refusals::of(row.refusals, row.probe_in),
        first_refusals: Refusals::of(row.first_refusals, row.first_probe_in),
    });
    Ok(claimed.collect())
}

/// Gives each relay the row of its connection, which the mirror does not list.
async fn ensure_upstreams(
    tx: &mut PgConnection,
    claimed: &mut [Claimed],
) -> Result<(), sqlx::Error> {
    let urls: Vec<String> = claimed.iter().map(|one| one.url.clone()).collect();
    sqlx::query!(
        "insert into upstream (url, enabled, backfill, negentropy, direction, mirrored)
         select url, false, false, true, 'down', false from unnest($1::text[]) as wanted (url) order by url
         on conflict (url) do nothing",
        &urls,
    )
    .execute(&mut *tx)
    .await?;
    let rows = sqlx::query!(
        "update grasp_relay r set upstream_id = u.id
         from upstream u where u.url = r.url and u.removing_at is null and r.url = any($1)
         returning r.id, u.id as upstream",
        &urls,
    )
    .fetch_all(tx)
    .await?;
    for row in rows {
        for one in claimed.iter_mut().filter(|one| one.lease.relay == row.id) {
            one.upstream = Some(row.upstream);
        }
    }
    Ok(())
}
