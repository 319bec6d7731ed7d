//! Purge deletes expired events, and removes events that were deleted long ago. Their ids stay
//! known for a while, so that they are not fetched again; the marks of deletions and the heads stay.

use serde::Serialize;
use sqlx::PgPool;

use super::store::{self, REMEMBERED};
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
    /// Ids of refused and removed events that were forgotten.
    pub forgotten: u64,
}

/// Soft-deletes expired events and removes events that were deleted at least `kept_days` days ago,
/// with at most `batches` statements each. Also forgets ids that were remembered for long enough, and
/// deletes statistics older than eight days. If a statement fails, the changes of the previous ones
/// stay.
pub async fn purge(db: &PgPool, kept_days: i32, batches: u32) -> Result<Purged, sqlx::Error> {
    let mut purged = Purged::default();
    for _ in 0..batches {
        let (expired, removed) = (expire(db).await?, remove(db, kept_days).await?);
        let (dated, forgotten) = (date(db).await?, forget(db).await?);
        purged.expired += expired;
        purged.removed += removed;
        purged.forgotten += forgotten;
        if expired + removed + dated + forgotten == 0 {
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
                      where expires_at <= floor(extract(epoch from now()))::bigint and deleted_at is null
                      order by expires_at limit $1 for update skip locked)",
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(expired.rows_affected())
}

/// Removes soft-deleted events. A deletion is never soft-deleted, so it stays. The arrays force one index lookup per
/// id, whatever the planner expects.
async fn remove(db: &PgPool, kept_days: i32) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query!(
        "with gone as (
             delete from event
             where id in (select id from event
                          where deleted_at < now() - make_interval(days => $1)
                          order by deleted_at limit $2 for update skip locked)
             returning id, pubkey, kind, created_at, delete_reason
         ), forgotten as (
             delete from event_source where event_id = any(array(select id from gone))
         ), settled as (
             delete from upload_verdict where event_id = any(array(select id from gone))
         ), unadmitted as (
             delete from admission where event_id = any(array(select id from gone))
         )
         insert into known_id (event_id, created_at, reason, kind, pubkey, retry_after)
         select id, created_at, delete_reason, kind, pubkey, now() + make_interval(secs => $3::bigint)
         from gone order by id
         on conflict (event_id) where upstream_id is null do nothing",
        kept_days,
        BATCH,
        REMEMBERED,
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected())
}

/// Gives a time to remembered ids of an older release, which have none.
async fn date(db: &PgPool) -> Result<u64, sqlx::Error> {
    let dated = sqlx::query!(
        "update known_id set retry_after = seen_at + make_interval(secs => $1::bigint)
         where ctid = any(array(
             select ctid from known_id where retry_after is null limit $2 for update skip locked))",
        REMEMBERED,
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(dated.rows_affected())
}

/// Forgets ids whose time is over.
async fn forget(db: &PgPool) -> Result<u64, sqlx::Error> {
    let forgotten = sqlx::query!(
        "delete from known_id where ctid = any(array(
             select ctid from known_id where retry_after <= now()
             order by retry_after limit $1 for update skip locked))",
        BATCH,
    )
    .execute(db)
    .await?;
    Ok(forgotten.rows_affected())
}

/// Deletes all events, everything known about events or wanted because of them, and all lanes, in one
/// transaction. It waits for
/// the transactions that store events, and new ones wait for it.
pub async fn wipe(db: &PgPool) -> Result<(), sqlx::Error> {
    contended::retried(|| try_wipe(db)).await
}

async fn try_wipe(db: &PgPool) -> Result<(), sqlx::Error> {
    let mut tx = crate::database::begin(db).await?;
    store::alone(&mut tx).await?;
    sqlx::query!(
        "truncate event, event_head, event_source, known_id, deletion_mark,
                  deletion_address, upload_verdict, rejection, ingest_minute, lane, lane_gap,
                  kind_count, kind_change, admission, parked, parked_key, grasp_release, grasp_wake, grasp_repo,
                  grasp_repo_relay, grasp_root, grasp_author, grasp_coverage, grasp_coverage_count,
                  grasp_batch, grasp_gap, grasp_outbox"
    )
    .execute(&mut *tx)
    .await?;
    sqlx::query!("update grasp_relay set reconciled_at = null, comparing_since = null")
        .execute(&mut *tx)
        .await?;
    tx.commit().await
}
