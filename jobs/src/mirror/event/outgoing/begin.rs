//! The beginning of a run of an upload lane, and what the lane knows of a run that died.

use sqlx::PgExecutor;

use crate::{mirror::lane::Lease, queue::Settled};

/// Where a run of an upload lane begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// Every stored event up to this position has a verdict, waits, or is not for the upstream.
    pub position: i64,
    /// The events up to this position may have been sent by a run that ended without verdicts. If
    /// the upstream has such an event already, it is counted as uploaded.
    pub sending: i64,
}

/// Begins a run. After a change of the filter, whose hash is `filter`, the lane visits every
/// position again: events with a verdict are passed over.
pub async fn begin(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    filter: &str,
) -> Result<Settled<Begun>, sqlx::Error> {
    let begun = sqlx::query_as!(
        Begun,
        "update lane set upload_filter = $3, heartbeat_at = now(),
                upload_position = case when upload_filter <> $3 then 0 else upload_position end,
                upload_sending = case when upload_filter <> $3 then 0 else upload_sending end
         where id = $1 and lease_epoch = $2 and status = 'syncing'
         returning upload_position as position, upload_sending as sending",
        lease.lane.id,
        lease.epoch,
        filter,
    )
    .fetch_optional(db)
    .await?;
    Ok(begun.map_or(Settled::LeaseLost, Settled::Written))
}

/// Stores that the events up to `position` are being sent.
pub async fn mark_sending(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    position: i64,
) -> Result<Settled<()>, sqlx::Error> {
    let marked = sqlx::query!(
        "update lane set upload_sending = greatest(upload_sending, $3), heartbeat_at = now()
         where id = $1 and lease_epoch = $2 and status = 'syncing'",
        lease.lane.id,
        lease.epoch,
        position,
    )
    .execute(db)
    .await?;
    Ok(Settled::of(marked.rows_affected()))
}
