//! Purge deletes expired events, and removes events that were deleted long ago. Their ids stay
//! known, so the copy of another relay is not stored as a new event.

use serde::Serialize;
use sqlx::PgPool;

use super::store;
use crate::mirror::contended;

/// The most rows that one statement changes: it holds locks for a short time only.
const BATCH: i64 = 2000;

/// The result of a purge.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Purged {
    /// Expired events that were soft-deleted.
    pub expired: u64,
    /// Soft-deleted events that were removed.
    pub removed: u64,
}

/// Soft-deletes expired events and removes events that were deleted at least `kept_days` days ago,
/// with at most `batches` statements each. Also deletes statistics older than eight days. If a
/// statement fails, the changes of the previous ones stay.
pub async fn purge(db: &PgPool, kept_days: i32, batches: u32) -> Result<Purged, sqlx::Error> {
    let mut purged = Purged::default();
    for _ in 0..batches {
        let (expired, removed) = (expire(db).await?, remove(db, kept_days).await?);
        purged.expired += expired;
        purged.removed += removed;
        if expired + removed == 0 {
            break;
        }
    }
    sqlx::query!("delete from ingest_minute where minute < now() - interval '8 days'")
        .execute(db)
        .await?;
    Ok(purged)
}

async fn expire(db: &PgPool) -> Result<u64, sqlx::Error> {
    let expired = sqlx::query!(
        "update event set deleted_at = now(), delete_reason = 'expired'
         where id in (select id from event
                      where expires_at <= extract(epoch from now()) and deleted_at is null
                      order by expires_at limit $1 for update skip locked)",
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(expired.rows_affected())
}

/// Removes soft-deleted events. A deletion is never soft-deleted, so it stays.
async fn remove(db: &PgPool, kept_days: i32) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query!(
        "with gone as (
             delete from event
             where id in (select id from event
                          where deleted_at < now() - make_interval(days => $1)
                          order by deleted_at limit $2 for update skip locked)
             returning id, created_at, delete_reason
         ), forgotten as (
             delete from event_source using gone where event_source.event_id = gone.id
         ), settled as (
             delete from upload_verdict using gone where upload_verdict.event_id = gone.id
         )
         insert into known_id (event_id, created_at, reason)
         select id, created_at, delete_reason from gone order by id
         on conflict (event_id) where upstream_id is null do nothing",
        kept_days,
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// Deletes all events, everything known about events, and all lanes, in one transaction. It waits for
/// the transactions that store events, and new ones wait for it.
pub async fn wipe(db: &PgPool) -> Result<(), sqlx::Error> {
    contended::retried(|| try_wipe(db)).await
}

async fn try_wipe(db: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = db.begin().await?;
    store::alone(&mut tx).await?;
    sqlx::query!(
        "truncate event, event_tag, event_head, event_source, known_id, deletion_mark,
                  deletion_address, upload_verdict, rejection, ingest_minute, lane, lane_gap"
    )
    .execute(&mut *tx)
    .await?;
    tx.commit().await
}
