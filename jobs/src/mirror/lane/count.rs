//! The counters of a lane. They are written in the transaction that stores the counted events or
//! verdicts, so that a crash neither loses a count nor repeats one.

use sqlx::PgExecutor;
use uuid::Uuid;

use super::Lease;
use crate::{
    mirror::event::{EventId, Tally, outgoing::UploadTally},
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

/// Adds uploads to the upstream's upload lane; `last` is the last event that the upstream accepted.
/// With a lease, this happens only if the lease is still held. Without one, the lane may have
/// another holder, or may not exist: then nothing is counted.
pub(in crate::mirror) async fn count_uploads(
    db: impl PgExecutor<'_>,
    upstream: Uuid,
    lease: Option<&Lease>,
    tally: UploadTally,
    last: Option<EventId>,
) -> Result<Settled<()>, sqlx::Error> {
    let counted = sqlx::query!(
        "update lane set uploaded = uploaded + $4, upload_duplicate = upload_duplicate + $5,
                upload_rejected = upload_rejected + $6,
                last_upload_event_id = coalesce($7, last_upload_event_id),
                last_upload_at = case when $7::bytea is null then last_upload_at else now() end,
                last_synced_at = now(),
                heartbeat_at = case when $2::uuid is null then heartbeat_at else now() end
         where upstream_id = $1 and lane = 'upload'
           and ($2::uuid is null or (id = $2 and lease_epoch = $3 and status = 'syncing'))",
        upstream,
        lease.map(|lease| lease.lane.id),
        lease.map(|lease| lease.epoch),
        tally.accepted,
        tally.duplicate,
        tally.rejected,
        last.map(|id| id.0.to_vec()),
    )
    .execute(db)
    .await?;
    Ok(if lease.is_some() { Settled::of(counted.rows_affected()) } else { Settled::Written(()) })
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
