//! The counters of a lane. They are written in the transaction that stores the counted events or
//! verdicts, so that a crash neither loses a count nor repeats one.

use sqlx::PgExecutor;
use uuid::Uuid;

use super::Lease;
use crate::{
    mirror::event::{
        Tally,
        outgoing::{Reached, Told, UploadTally},
    },
    queue::Settled,
};

/// Adds a batch of received events to the lane, if the lease is still held. The write is also a
/// heartbeat.
pub(in crate::mirror) async fn count(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    tally: &Tally,
) -> Result<Settled<()>, sqlx::Error> {
    let counted = sqlx::query!(
        "update lane set received = received + $3, stored = stored + $4, duplicate = duplicate + $5,
                rejected = rejected + $6, last_synced_at = now(), heartbeat_at = now()
         where id = $1 and lease_epoch = $2 and status = 'syncing'",
        lease.lane.id,
        lease.epoch,
        tally.received(),
        tally.stored,
        tally.duplicate,
        tally.rejected(),
    )
    .execute(db)
    .await?;
    Ok(Settled::of(counted.rows_affected()))
}

/// Adds uploads to the upload lane, and stores what its run has reached and what the upstream told
/// last, if the lease is still held. The write is also a heartbeat.
pub(in crate::mirror) async fn count_uploads(
    db: impl PgExecutor<'_>,
    lease: &Lease,
    tally: UploadTally,
    told: &Told,
    reached: Reached,
) -> Result<Settled<()>, sqlx::Error> {
    let counted = sqlx::query!(
        "update lane set uploaded = uploaded + $3, upload_duplicate = upload_duplicate + $4,
                upload_rejected = upload_rejected + $5,
                last_upload_event_id = coalesce($6, last_upload_event_id),
                last_upload_at = case when $6::bytea is null then last_upload_at else now() end,
                upload_answered_at = case when $7 then now() else upload_answered_at end,
                upload_position = greatest(upload_position, $8),
                upload_sending = greatest(upload_sending, $9),
                upload_refusal = coalesce($10, upload_refusal),
                upload_refused_at = case when $10::text is null then upload_refused_at else now() end,
                last_synced_at = now(), heartbeat_at = now()
         where id = $1 and lease_epoch = $2 and status = 'syncing'",
        lease.lane.id,
        lease.epoch,
        tally.accepted,
        tally.duplicate,
        tally.rejected,
        told.last.map(|id| id.0.to_vec()),
        reached.is_answered,
        reached.position,
        reached.sending,
        told.refusal.as_deref(),
    )
    .execute(db)
    .await?;
    Ok(Settled::of(counted.rows_affected()))
}

/// Adds a batch of received events to a live lane. The lease is not checked, because the events are
/// stored by jobs that need no lane.
pub(in crate::mirror) async fn count_live(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    tally: &Tally,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set received = received + $2, stored = stored + $3, duplicate = duplicate + $4,
                rejected = rejected + $5, last_synced_at = now()
         where id = $1",
        lane,
        tally.received(),
        tally.stored,
        tally.duplicate,
        tally.rejected(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Adds events that were not requested to a live lane.
pub async fn count_violations(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    violations: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set violations = violations + $2, last_synced_at = now() where id = $1",
        lane,
        violations,
    )
    .execute(db)
    .await?;
    Ok(())
}
