//! Orchestration: enqueues the work of a mode for each upstream that has any, and reports why the
//! others have none.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::mirror::{
    deployment,
    lane::{self, LaneKind},
    upstream::{self, Upstream, settings::Settings},
    work,
};
use uuid::Uuid;

use super::Context;

/// The jobs of one scheduled run start within this time, evenly spread.
const SPREAD: Duration = Duration::from_secs(30);

/// The result for one upstream.
#[derive(Debug, Clone, Serialize)]
pub struct Dispatch {
    /// The URL of the upstream.
    pub url: String,
    /// The lane whose work was enqueued, is waiting or is running.
    pub lane: Option<Uuid>,
    /// The reason why nothing was enqueued; `None` if a job was enqueued or made due.
    pub skipped: Option<&'static str>,
}

impl Dispatch {
    /// Whether the mode does not concern the upstream, so that there was nothing to enqueue.
    pub fn is_unconcerned(&self) -> bool {
        self.skipped.is_some_and(|why| [EXCLUDED, TAKES_ONLY].contains(&why))
    }

    /// Whether the work could not be enqueued because of an error.
    pub fn is_failed(&self) -> bool {
        self.skipped == Some(DATABASE_ERROR)
    }
}

const EXCLUDED: &str = "its direction or its backfill flag excludes this mode";
const TAKES_ONLY: &str = "the upstream only takes events, and does not support NIP-77";
/// Why an upstream was skipped after an error of our database.
const DATABASE_ERROR: &str = "database error; see the log";

/// Runs an orchestration job and returns its result.
pub(crate) async fn run(
    context: &Context,
    mode: LaneKind,
    only: Option<Uuid>,
    is_manual: bool,
) -> Result<Value, sqlx::Error> {
    let dispatched = dispatch(&context.db, mode, only, is_manual).await?;
    let enqueued = dispatched.iter().filter(|one| one.skipped.is_none()).count();
    Ok(json!({ "mode": mode, "enqueued": enqueued, "relays": dispatched }))
}

/// Enqueues the work of a mode for the upstream `only`, or for all upstreams, and returns the
/// result of each. An upstream that fails does not stop the others. A manual request (`is_manual`)
/// ignores cool-downs and makes waiting jobs due.
///
/// # Errors
/// The upstreams or the deployment's settings could not be read.
pub async fn dispatch(
    db: &PgPool,
    mode: LaneKind,
    only: Option<Uuid>,
    is_manual: bool,
) -> Result<Vec<Dispatch>, sqlx::Error> {
    let deployment = deployment::settings(db).await?;
    let upstreams = match only {
        Some(id) => upstream::find(db, id).await?.into_iter().collect(),
        None => upstream::list(db).await?,
    };
    let mut dispatched = Vec::with_capacity(upstreams.len());
    let count = u32::try_from(upstreams.len()).unwrap_or(u32::MAX).max(1);
    for (index, upstream) in (0_u32..).zip(&upstreams) {
        let after = if is_manual { Duration::ZERO } else { SPREAD * index / count };
        let outcome = one(db, &deployment, upstream, mode, is_manual, after).await;
        let (lane, skipped) = match outcome {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, url = upstream.url, "could not enqueue the work of an upstream");
                (None, Some(DATABASE_ERROR))
            }
        };
        dispatched.push(Dispatch { url: upstream.url.clone(), lane, skipped });
    }
    Ok(dispatched)
}

/// The lane, and the reason why nothing was enqueued; see [`Dispatch`].
type Found = (Option<Uuid>, Option<&'static str>);

/// Enqueues the work of one upstream, due after `after`.
async fn one(
    db: &PgPool,
    deployment: &Settings,
    upstream: &Upstream,
    mode: LaneKind,
    is_manual: bool,
    after: Duration,
) -> Result<Found, sqlx::Error> {
    if !upstream.enabled {
        return Ok((None, Some("disabled")));
    }
    if !upstream.takes_part_in(mode) {
        return Ok((None, Some(EXCLUDED)));
    }
    let settings = upstream.settings(deployment);
    let reconciles = upstream::tries_negentropy(db, upstream.id).await?;
    if matches!(mode, LaneKind::Backfill | LaneKind::Full)
        && !reconciles
        && !upstream.direction.downloads()
    {
        return Ok((None, Some(TAKES_ONLY)));
    }
    let kind = full_or_backfill(db, upstream, mode, &settings).await?;
    let lane = lane::ensure(db, upstream, kind, &settings).await?;
    if lane.status == "syncing" && !lane.is_stale {
        // The lane's job may be waiting for its retry.
        let hurried = is_manual && work::hurry_lane(db, lane.id, kind).await?;
        return Ok((Some(lane.id), (!hurried).then_some("already syncing")));
    }
    if lane.is_resting && !is_manual {
        return Ok((None, Some("resting after an error")));
    }
    if kind == LaneKind::Backfill && lane.is_complete() && !lane.has_due_gap {
        return Ok((None, Some("complete")));
    }
    if kind == LaneKind::Backfill && lane::is_running(db, upstream.id, LaneKind::Full).await? {
        return Ok((None, Some("a full run compares the history now")));
    }
    if kind == LaneKind::Full {
        lane::begin_full(db, lane.id, full_hours(&settings, reconciles)).await?;
    }
    match work::push_lane(db, lane.id, kind, after).await? {
        Some(_) => Ok((Some(lane.id), None)),
        None if is_manual && work::hurry_lane(db, lane.id, kind).await? => {
            Ok((Some(lane.id), None))
        }
        None => Ok((Some(lane.id), Some("already waiting"))),
    }
}

/// Returns the hours that a full run covers. Polling fetches every event again, so it covers a week.
pub(super) fn full_hours(settings: &Settings, reconciles: bool) -> u64 {
    if reconciles { settings.backfill_since_hours } else { settings.chunk_max_hours.max(168) }
}

/// Returns the lane kind for a mode. A full run completes the backfill first, because both would fetch
/// the same history.
async fn full_or_backfill(
    db: &PgPool,
    upstream: &Upstream,
    mode: LaneKind,
    settings: &Settings,
) -> Result<LaneKind, sqlx::Error> {
    if mode != LaneKind::Full {
        return Ok(mode);
    }
    let backfill = lane::ensure(db, upstream, LaneKind::Backfill, settings).await?;
    Ok(if backfill.is_complete() { LaneKind::Full } else { LaneKind::Backfill })
}
