//! Gaps whose retry is due. A retry first moves its gaps to their next one, in a transaction of its
//! own, so that a retry that fails in any way delays no other gap.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{
    GapKind,
    replace::{Kept, Row, insert, sum},
};
use crate::{
    mirror::{event::EventId, lane::Lease},
    queue::Settled,
};

/// The gaps that one job retries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Due {
    /// A second or a span.
    Window {
        /// The kind of the gap.
        kind: GapKind,
        /// The first second, in Unix seconds.
        since: i64,
        /// The last second, in Unix seconds.
        until: i64,
    },
    /// Ids, with the windows in which they were listed.
    Ids(HashMap<EventId, (i64, i64)>),
}

/// What one job retries.
#[derive(Debug, Clone, Copy)]
pub struct Share {
    /// The longest window, in seconds. The newest part of a longer span is taken, and the rest is due
    /// after what is due now.
    pub seconds: i64,
    /// The most ids; 0 if this lane retries none.
    pub ids: i64,
}

/// Takes the gaps that are due for the longest time. Each counts an attempt and waits for its next
/// retry from now on; a window that is finished replaces them. `None` if no gap is due.
pub async fn take_due(
    db: &PgPool,
    lease: &Lease,
    share: Share,
) -> Result<Settled<Option<Due>>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    if !holds(&mut tx, lease).await? {
        return Ok(Settled::LeaseLost);
    }
    let lane = lease.lane.id;
    let first = sqlx::query!(
        r#"select id, event_id is not null as "is_id!" from lane_gap
           where lane_id = $1 and retry_at <= now() and (event_id is null or $2)
           order by retry_at, id limit 1"#,
        lane,
        share.ids > 0,
    );
    let due = match first.fetch_optional(&mut *tx).await? {
        None => None,
        Some(first) if first.is_id => Some(Due::Ids(take_ids(&mut tx, lane, share.ids).await?)),
        Some(first) => Some(take_window(&mut tx, lane, first.id, share.seconds).await?),
    };
    sum(&mut tx, lane).await?;
    tx.commit().await?;
    Ok(Settled::Written(due))
}

/// Makes the rest of a window due again, without an attempt spent: its retry came forward, and is not
/// over. `at` is a second at which the window is divided into two gaps; `None` leaves it whole.
pub async fn continue_due(
    db: &PgPool,
    lease: &Lease,
    since: i64,
    at: Option<i64>,
) -> Result<Settled<()>, sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    if !holds(&mut tx, lease).await? {
        return Ok(Settled::LeaseLost);
    }
    let lane = lease.lane.id;
    for kept in remove_from(&mut tx, lane, since).await? {
        let now = now(&mut tx).await?;
        let kept = kept.due_again(now);
        let parts = match at {
            Some(at) => [kept.part(since, at), kept.part(at + 1, kept.gap.until)],
            None => [Some(kept), None],
        };
        insert(&mut tx, lane, &parts.into_iter().flatten().collect::<Vec<_>>()).await?;
    }
    sum(&mut tx, lane).await?;
    tx.commit().await?;
    Ok(Settled::Written(()))
}

/// Locks the lane. Returns whether the lease is still held.
async fn holds(tx: &mut PgConnection, lease: &Lease) -> Result<bool, sqlx::Error> {
    let held = sqlx::query_scalar!(
        "select id from lane where id = $1 and lease_epoch = $2 and status = 'syncing' for update",
        lease.lane.id,
        lease.epoch,
    );
    Ok(held.fetch_optional(tx).await?.is_some())
}

async fn now(tx: &mut PgConnection) -> Result<DateTime<Utc>, sqlx::Error> {
    sqlx::query_scalar!(r#"select now() as "now!""#).fetch_one(tx).await
}

async fn take_ids(
    tx: &mut PgConnection,
    lane: Uuid,
    most: i64,
) -> Result<HashMap<EventId, (i64, i64)>, sqlx::Error> {
    let taken = sqlx::query!(
        r#"update lane_gap set attempts = attempts + 1,
                  retry_at = now() + make_interval(secs => least(3600 * 2::float8 ^ least(attempts + 1, 5), 86400))
           where id in (select id from lane_gap
                        where lane_id = $1 and event_id is not null and retry_at <= now()
                        order by retry_at, id limit $2)
           returning event_id as "id!", since, until"#,
        lane,
        most,
    );
    let taken = taken.fetch_all(tx).await?;
    Ok(taken.iter().map(|row| (EventId::of_row(&row.id), (row.since, row.until))).collect())
}

async fn take_window(
    tx: &mut PgConnection,
    lane: Uuid,
    id: i64,
    seconds: i64,
) -> Result<Due, sqlx::Error> {
    let removed = sqlx::query_as!(
        Row,
        r#"delete from lane_gap where lane_id = $1 and id = $2
           returning kind as "kind: GapKind", since, until, event_id, reason, first_seen_at, attempts,
                     retry_at, retry_at <= now() as "is_due!""#,
        lane,
        id,
    );
    let whole = Kept::from(removed.fetch_one(&mut *tx).await?);
    let (kind, until) = (whole.gap.kind, whole.gap.until);
    let since = whole.gap.since.max(until - seconds.max(1) + 1);
    let now = now(&mut *tx).await?;
    let rest = whole.part(whole.gap.since, since - 1).map(|rest| rest.waiting_until(now));
    let taken = whole.part(since, until).map(Kept::tried);
    insert(tx, lane, &rest.into_iter().chain(taken).collect::<Vec<_>>()).await?;
    Ok(Due::Window { kind, since, until })
}

/// Deletes and returns the window that begins at `since`.
async fn remove_from(
    tx: &mut PgConnection,
    lane: Uuid,
    since: i64,
) -> Result<Vec<Kept>, sqlx::Error> {
    let removed = sqlx::query_as!(
        Row,
        r#"delete from lane_gap where lane_id = $1 and since = $2 and event_id is null
           returning kind as "kind: GapKind", since, until, event_id, reason, first_seen_at, attempts,
                     retry_at, retry_at <= now() as "is_due!""#,
        lane,
        since,
    );
    Ok(removed.fetch_all(tx).await?.into_iter().map(Kept::from).collect())
}
