//! The mirror's jobs: their payloads, and their insertion into the queue.
//!
//! The job of a lane holds the key `lane:<id>` until it ends, so a lane has at most one job. The
//! other jobs need no key, because doing them twice is harmless.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgExecutor, PgPool};
use uuid::Uuid;

use super::{
    DELETIONS, EVENTS, MIRROR, UPLOADS,
    lane::LaneKind,
    upstream::{Direction, Participation},
};
use crate::queue::{self, NewJob};

/// The payload of a job. It holds ids; only [`Work::ProcessEvents`] holds the events themselves,
/// since they are stored nowhere else yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "job", rename_all = "snake_case")]
pub enum Work {
    /// Enqueues the lanes of a mode that have work.
    Orchestrate {
        /// The mode.
        mode: LaneKind,
        /// The only upstream to consider; `None` for all.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        upstream: Option<Uuid>,
        /// Whether an operator asked for this run: then lanes in their cool-down are included.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        manual: bool,
    },
    /// Does the next step of a lane: a window, or a run of uploads.
    Lane {
        /// The lane.
        lane: Uuid,
        /// The kind of the lane, which decides the queue.
        kind: LaneKind,
    },
    /// Frees lanes whose holder died or whose cool-down is over.
    Recover,
    /// Deletes expired events, and removes events that were deleted long ago.
    Purge,
    /// Verifies and stores events that a live subscription received.
    ProcessEvents {
        /// The upstream that sent the events.
        upstream: Uuid,
        /// The live lane that the events are counted on.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        lane: Option<Uuid>,
        /// The events, each as JSON text.
        events: Vec<String>,
    },
    /// Deletes what mentions an upstream that is being removed, and then the upstream.
    RemoveUpstream {
        /// The upstream.
        upstream: Uuid,
    },
    /// Applies a stored deletion once more.
    ProcessDeletion {
        /// The id of the deletion, in hex.
        event: String,
    },
    /// Hands events that the upstream lacks to its upload lane. Only earlier releases enqueue it.
    UploadEvents {
        /// The upstream.
        upstream: Uuid,
        /// The ids of the events, in hex.
        events: Vec<String>,
    },
}

impl Work {
    /// Reads the payload of a job.
    ///
    /// # Errors
    /// The reason why this job can never be done: its payload is malformed, or of another version.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        queue::parse(bytes)
    }

    /// Returns the queue of this work.
    pub fn queue(&self) -> &'static str {
        match self {
            Self::Lane { kind: LaneKind::Upload, .. } | Self::UploadEvents { .. } => UPLOADS,
            Self::Orchestrate { .. }
            | Self::Lane { .. }
            | Self::Recover
            | Self::Purge
            | Self::RemoveUpstream { .. } => MIRROR,
            Self::ProcessEvents { .. } => EVENTS,
            Self::ProcessDeletion { .. } => DELETIONS,
        }
    }

    /// The attempts of this work, the first included. A recurring run has one attempt, because the
    /// next run does the same work.
    fn max_attempts(&self) -> i32 {
        match self {
            Self::Orchestrate { .. } | Self::Recover | Self::Purge => 1,
            Self::Lane { kind: LaneKind::Upload, .. } | Self::UploadEvents { .. } => 3,
            Self::Lane { .. }
            | Self::RemoveUpstream { .. }
            | Self::ProcessEvents { .. }
            | Self::ProcessDeletion { .. } => 5,
        }
    }

    /// The priority of this work: what finds work for others, then new events, then history. Upkeep is
    /// last.
    fn priority(&self) -> i32 {
        match self {
            Self::Orchestrate { .. } | Self::Recover => 10,
            Self::Lane { kind: LaneKind::Realtime | LaneKind::Live, .. } => 5,
            Self::Lane { .. } | Self::ProcessEvents { .. } | Self::UploadEvents { .. } => 0,
            Self::Purge | Self::RemoveUpstream { .. } | Self::ProcessDeletion { .. } => -5,
        }
    }

    /// Returns the job that carries this work, due now. A lane and a removal have a key, so that each
    /// has at most one job.
    pub fn job(&self) -> NewJob {
        let job = NewJob::versioned(self.queue(), self)
            .max_attempts(self.max_attempts())
            .priority(self.priority());
        match self {
            Self::Lane { lane, .. } => job.key(lane_key(*lane)),
            Self::RemoveUpstream { upstream } => job.key(format!("remove:{upstream}")),
            _ => job,
        }
    }
}

fn lane_key(lane: Uuid) -> String {
    format!("lane:{lane}")
}

/// Enqueues the next job of a lane, due after a delay. Returns its id, or `None` if the lane has a
/// job already.
pub async fn push_lane(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    kind: LaneKind,
    after: Duration,
) -> Result<Option<String>, sqlx::Error> {
    let job = Work::Lane { lane, kind }.job().after(after);
    Ok(queue::enqueue(db, &[job]).await?.pop())
}

/// Enqueues the next jobs of lanes, due after their delays, in one statement. Returns for each whether it was
/// enqueued: the other lanes have a job already.
///
/// # Errors
/// Another transaction has held the key of one of the lanes for half a second: a longer wait would keep the keys of all
/// the others from those who need them.
pub async fn push_lanes(
    db: &PgPool,
    lanes: &[(Uuid, LaneKind, Duration)],
) -> Result<Vec<bool>, sqlx::Error> {
    let job = |(lane, kind, after): &(Uuid, LaneKind, Duration)| {
        Work::Lane { lane: *lane, kind: *kind }.job().after(*after)
    };
    let jobs: Vec<NewJob> = lanes.iter().map(job).collect();
    let mut tx = crate::database::begin(db).await?;
    sqlx::query!("set local lock_timeout = '500ms'").execute(&mut *tx).await?;
    let enqueued = queue::enqueue_keyed(&mut *tx, &jobs).await?;
    tx.commit().await?;
    Ok(lanes.iter().map(|(lane, ..)| enqueued.contains(&lane_key(*lane))).collect())
}

/// Makes a lane's waiting job due now. Returns false if the lane has no waiting job.
pub async fn hurry_lane(
    db: impl PgExecutor<'_>,
    lane: Uuid,
    kind: LaneKind,
) -> Result<bool, sqlx::Error> {
    queue::hurry(db, Work::Lane { lane, kind }.queue(), &lane_key(lane)).await
}

/// Whether a lane has a job, waiting or running.
pub async fn lane_has_job(db: impl PgExecutor<'_>, lane: Uuid) -> Result<bool, sqlx::Error> {
    queue::has_job(db, &[MIRROR, UPLOADS], &lane_key(lane)).await
}

/// The most deletions that [`push_deletions`] enqueues.
const MOST_DELETIONS: i64 = 100_000;
/// The jobs that one statement inserts.
const PAGE: usize = 1000;

/// Enqueues stored deletions to be applied again, at most 100,000, and returns how many. After an
/// error, some of them are enqueued.
pub async fn push_deletions(db: &PgPool) -> Result<usize, sqlx::Error> {
    let ids = sqlx::query_scalar!(
        r#"select encode(id, 'hex') as "id!" from event where kind = 5 order by position limit $1"#,
        MOST_DELETIONS,
    )
    .fetch_all(db)
    .await?;
    for page in ids.chunks(PAGE) {
        let job = |id: &String| {
            Work::ProcessDeletion { event: id.clone() }.job().after(Duration::from_secs(1))
        };
        queue::enqueue(db, &page.iter().map(job).collect::<Vec<_>>()).await?;
    }
    Ok(ids.len())
}

/// Enqueues a run of an upload lane, due now, unless the lane has a job or rests after an error.
pub(super) async fn push_upload(db: &mut PgConnection, lane: Uuid) -> Result<(), sqlx::Error> {
    let is_resting = sqlx::query_scalar!(
        r#"select status = 'error' and retry_at > now() as "is_resting!" from lane where id = $1"#,
        lane,
    );
    if !is_resting.fetch_optional(&mut *db).await?.unwrap_or(true) {
        push_lane(db, lane, LaneKind::Upload, Duration::ZERO).await?;
    }
    Ok(())
}

/// Enqueues an upload for every live upstream that takes events, so that new events are sent at
/// once. A lane whose upload runs at this time has a job already: its next run sends the events.
pub(super) async fn push_live_uploads(db: &mut PgConnection) -> Result<(), sqlx::Error> {
    let lanes = sqlx::query!(
        r#"select lane.id as lane, u.enabled, u.direction as "direction: Direction", u.backfill,
                  u.negentropy, u.live
           from lane join upstream u on u.id = lane.upstream_id
           where lane.lane = 'upload' and u.live and (lane.status <> 'error' or lane.retry_at <= now())
           order by lane.id"#,
    )
    .fetch_all(&mut *db)
    .await?;
    let jobs: Vec<NewJob> = lanes
        .into_iter()
        .filter(|row| {
            let (enabled, direction) = (row.enabled, row.direction);
            let (backfill, negentropy, live) = (row.backfill, row.negentropy, row.live);
            let upstream = Participation { enabled, direction, backfill, negentropy, live };
            upstream.takes_part_in(LaneKind::Upload)
        })
        .map(|row| Work::Lane { lane: row.lane, kind: LaneKind::Upload }.job())
        .collect();
    if !jobs.is_empty() {
        queue::enqueue(db, &jobs).await?;
    }
    Ok(())
}
