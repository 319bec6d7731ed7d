//! Claiming: one conditional update, never a read and then a write.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{Lane, LaneKind};
use crate::queue::Job;

/// The right to work on a lane.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The lane, as it was claimed.
    pub lane: Lane,
    /// What every write names; a later claim has a higher one.
    pub epoch: i64,
}

/// What became of a claim.
#[derive(Debug)]
pub enum Claim {
    /// It is ours.
    Held(Box<Lease>),
    /// Somebody else works on it.
    Busy,
    /// The lane is gone: its upstream was deleted, or it was reset.
    Gone,
}

/// Claims a lane for a job: when nobody holds it, when this very job does, as after a crash, or when
/// its holder has shown no sign of life for `stale`.
///
/// # Errors
/// The database did not answer.
pub async fn claim(
    db: &PgPool,
    lane: Uuid,
    job: &Job,
    stale: Duration,
) -> Result<Claim, sqlx::Error> {
    let row = sqlx::query!(
        r#"update lane set status = 'syncing', lease_owner = $2, lease_epoch = lease_epoch + 1,
                  heartbeat_at = now(), error_message = null, retry_at = null, failed_at = null
           where id = $1
             and (status <> 'syncing' or lease_owner = $2
                  or heartbeat_at < now() - make_interval(secs => $3))
           returning id, upstream_id, lane as "kind: LaneKind", status, cursor_at, backfill_started_at,
                     backfill_target, backfill_until, window_seconds, cheap_windows, upload_position,
                     lease_epoch"#,
        lane,
        job.id,
        stale.as_secs_f64(),
    )
    .fetch_optional(db)
    .await?;
    if let Some(row) = row {
        let lane = Lane {
            id: row.id,
            upstream_id: row.upstream_id,
            kind: row.kind,
            status: row.status,
            cursor_at: row.cursor_at,
            backfill_started_at: row.backfill_started_at,
            backfill_target: row.backfill_target,
            backfill_until: row.backfill_until,
            window_seconds: row.window_seconds,
            cheap_windows: row.cheap_windows,
            upload_position: row.upload_position,
            retry_at: None,
            is_stale: false,
            is_resting: false,
        };
        return Ok(Claim::Held(Box::new(Lease { lane, epoch: row.lease_epoch })));
    }
    let exists =
        sqlx::query_scalar!(r#"select exists (select from lane where id = $1) as "exists!""#, lane);
    Ok(if exists.fetch_one(db).await? { Claim::Busy } else { Claim::Gone })
}

/// Claims, or goes on holding, the standing subscription of an upstream for a process; its epoch, or
/// `None` while another process holds it.
///
/// # Errors
/// The database did not answer.
pub async fn claim_live(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    process: &str,
    stale: Duration,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar!(
        "update lane set status = 'syncing', lease_owner = $2, heartbeat_at = now(),
                lease_epoch = lease_epoch + case when lease_owner is distinct from $2 then 1 else 0 end,
                error_message = null, retry_at = null, failed_at = null
         where id = $1 and lane = 'live'
           and (status <> 'syncing' or lease_owner = $2
                or heartbeat_at < now() - make_interval(secs => $3))
         returning lease_epoch",
        lane,
        process,
        stale.as_secs_f64(),
    )
    .fetch_optional(db)
    .await
}

/// Frees a standing subscription that this process holds.
///
/// # Errors
/// The database did not answer; then it is free when its holder has been silent for long enough.
pub async fn release_live(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    process: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query!(
        "update lane set status = 'idle', lease_owner = null
         where id = $1 and lane = 'live' and lease_owner = $2",
        lane,
        process,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// What a sign of life was answered with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// Go on.
    Held,
    /// Somebody else has the lane, or it is gone: write nothing more.
    Lost,
    /// The upstream was disabled, or its direction does not fit any more: stop.
    Unwanted,
}

/// Says that the holder lives, and asks whether its work is wanted still.
///
/// # Errors
/// The database did not answer.
pub async fn beat(db: impl PgExecutor<'_>, lease: &Lease) -> Result<Beat, sqlx::Error> {
    let wanted = sqlx::query_scalar!(
        r#"update lane set heartbeat_at = now()
           from upstream u
           where lane.id = $1 and lane.lease_epoch = $2 and lane.status = 'syncing'
             and u.id = lane.upstream_id
           returning u.enabled and case lane.lane
                when 'upload' then u.direction in ('up', 'both')
                when 'realtime' then u.direction in ('down', 'both')
                when 'live' then u.live and u.direction in ('down', 'both')
                else u.backfill and (u.direction in ('down', 'both') or u.negentropy)
           end as "wanted!""#,
        lease.lane.id,
        lease.epoch,
    )
    .fetch_optional(db)
    .await?;
    Ok(match wanted {
        Some(true) => Beat::Held,
        Some(false) => Beat::Unwanted,
        None => Beat::Lost,
    })
}
