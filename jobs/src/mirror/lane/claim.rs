//! Claims and heartbeats. A claim is one conditional update, never a read followed by a write.

use std::time::Duration;

use sqlx::{PgExecutor, PgPool};
use uuid::Uuid;

use super::{Lane, LaneKind};
use crate::{
    mirror::upstream::{Direction, Participation},
    queue::Job,
};

/// The right to work on a lane.
#[derive(Debug, Clone)]
pub struct Lease {
    /// The lane's row at the time of the claim.
    pub lane: Lane,
    /// The epoch that every write names; a later claim has a higher one.
    pub epoch: i64,
    /// The database's clock at the claim, in Unix seconds; never later: an event of a later second may not exist yet.
    pub claimed_at: i64,
    /// Attempts of the job that ended with the death of their worker, since the lane last moved on.
    pub deaths: i32,
}

/// The result of a claim.
#[derive(Debug)]
pub enum Claim {
    /// The caller holds the lane.
    Held(Box<Lease>),
    /// Another job holds the lane.
    Busy,
    /// The lane does not exist or has retired: its upstream was deleted, the lane was reset, or the
    /// upstream has another filter.
    Gone,
}

/// Claims a lane for a job. The claim succeeds if the lane has no holder, if the job itself is the
/// holder, as after a crash, or if the holder has sent no heartbeat for `stale`.
pub async fn claim(
    db: &PgPool,
    lane: Uuid,
    job: &Job,
    stale: Duration,
) -> Result<Claim, sqlx::Error> {
    let row = sqlx::query!(
        r#"update lane set status = 'syncing', lease_owner = $2, lease_epoch = lease_epoch + 1,
                  heartbeat_at = now(), error_message = null, retry_at = null, failed_at = null,
                  next_attempt_at = null,
                  failed_attempts = case when lease_owner = $2 then failed_attempts else 0 end,
                  forgiven_crashes = case when lease_owner is distinct from $2 then 0
                                          when progressed_epoch = lease_epoch then $4
                                          else forgiven_crashes end
           where id = $1 and retired_at is null
             and (status <> 'syncing' or lease_owner = $2
                  or heartbeat_at < now() - make_interval(secs => $3))
           returning id, upstream_id, lane as "kind: LaneKind", filter_hash, status, cursor_at, backfill_started_at,
                     backfill_target, backfill_until, window_seconds, cheap_windows, window_refused, upload_position,
                     walk_since, walk_until, walk_at, walk_cursor,
                     coalesce(gap_retry_at <= now(), false) as "has_due_gap!", lease_epoch, forgiven_crashes, last_error,
                     floor(extract(epoch from now()))::bigint as "claimed_at!""#,
        lane,
        job.id,
        stale.as_secs_f64(),
        job.crashes,
    )
    .fetch_optional(db)
    .await?;
    if let Some(row) = row {
        let lane = Lane {
            id: row.id,
            upstream_id: row.upstream_id,
            kind: row.kind,
            filter_hash: row.filter_hash,
            status: row.status,
            cursor_at: row.cursor_at,
            backfill_started_at: row.backfill_started_at,
            backfill_target: row.backfill_target,
            backfill_until: row.backfill_until,
            window_seconds: row.window_seconds,
            cheap_windows: row.cheap_windows,
            window_refused: row.window_refused,
            upload_position: row.upload_position,
            walk_since: row.walk_since,
            walk_until: row.walk_until,
            walk_at: row.walk_at,
            walk_cursor: row.walk_cursor,
            has_due_gap: row.has_due_gap,
            retry_at: None,
            is_stale: false,
            is_resting: false,
            last_error: row.last_error,
        };
        let deaths = job.crashes - row.forgiven_crashes;
        let (epoch, claimed_at) = (row.lease_epoch, row.claimed_at);
        return Ok(Claim::Held(Box::new(Lease { lane, epoch, claimed_at, deaths })));
    }
    let exists = sqlx::query_scalar!(
        r#"select exists (select from lane where id = $1 and retired_at is null) as "exists!""#,
        lane
    );
    Ok(if exists.fetch_one(db).await? { Claim::Busy } else { Claim::Gone })
}

/// Claims the lane `live` of an upstream for a process, or renews its claim. Returns the epoch, or
/// `None` while another process holds the lane.
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
         where id = $1 and lane = 'live' and retired_at is null
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

/// Releases the lane `live` if this process holds it. If this fails, other processes can claim the
/// lane once the last heartbeat is stale.
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

/// The result of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Beat {
    /// The caller still holds the lane.
    Held,
    /// Another job or process holds the lane, or it was deleted: the caller must not write.
    Lost,
    /// The upstream was disabled or does not need this lane any more: the caller must stop.
    Unwanted,
}

/// Sends a heartbeat. Returns whether the lease is valid and the work is still wanted.
pub async fn beat(db: impl PgExecutor<'_>, lease: &Lease) -> Result<Beat, sqlx::Error> {
    let upstream = sqlx::query_as!(
        Participation,
        r#"update lane set heartbeat_at = now()
           from upstream u
           where lane.id = $1 and lane.lease_epoch = $2 and lane.status = 'syncing'
             and u.id = lane.upstream_id
           returning u.enabled, u.direction as "direction: Direction", u.backfill, u.negentropy, u.live"#,
        lease.lane.id,
        lease.epoch,
    )
    .fetch_optional(db)
    .await?;
    Ok(match upstream {
        Some(upstream) if upstream.takes_part_in(lease.lane.kind) => Beat::Held,
        Some(_) => Beat::Unwanted,
        None => Beat::Lost,
    })
}
