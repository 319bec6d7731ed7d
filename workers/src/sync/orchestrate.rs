//! Orchestration: which upstreams have work of a mode, and why the others have none.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::{
    lane::{self, LaneKind},
    queue,
    upstream::{self, Upstream, settings::Settings},
};
use uuid::Uuid;

use crate::Context;

/// Relays of one tick are spread over this.
const SPREAD: Duration = Duration::from_secs(30);

/// What became of an upstream.
#[derive(Debug, Clone, Serialize)]
pub struct Dispatch {
    /// Its address.
    pub url: String,
    /// Its lane, where work was enqueued or is being done.
    pub lane: Option<Uuid>,
    /// Why nothing was enqueued.
    pub skipped: Option<&'static str>,
}

/// Runs an orchestrator job.
pub(crate) async fn run(
    context: &Context,
    mode: LaneKind,
    only: Option<Uuid>,
    is_manual: bool,
) -> Result<Value, sqlx::Error> {
    let settings = &context.settings.sync.settings;
    let dispatched = dispatch(&context.db, settings, mode, only, is_manual).await?;
    let enqueued = dispatched.iter().filter(|one| one.skipped.is_none()).count();
    Ok(json!({ "mode": mode, "enqueued": enqueued, "relays": dispatched }))
}

/// Enqueues the work of a mode, of one upstream or of all; one that fails does not stop the others.
/// Asked for by somebody, it does not wait for a cool-down, nor does its turn.
///
/// # Errors
/// The database did not answer.
pub async fn dispatch(
    db: &PgPool,
    deployment: &Settings,
    mode: LaneKind,
    only: Option<Uuid>,
    is_manual: bool,
) -> Result<Vec<Dispatch>, sqlx::Error> {
    let upstreams = match only {
        Some(id) => upstream::find(db, id).await?.into_iter().collect(),
        None => upstream::list(db).await?,
    };
    let mut dispatched = Vec::with_capacity(upstreams.len());
    let count = u32::try_from(upstreams.len()).unwrap_or(u32::MAX).max(1);
    for (index, upstream) in (0_u32..).zip(&upstreams) {
        let after = if is_manual { Duration::ZERO } else { SPREAD * index / count };
        let outcome = one(db, deployment, upstream, mode, is_manual, after).await;
        let (lane, skipped) = match outcome {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(%error, url = upstream.url, "could not enqueue a sync");
                (None, Some("the database did not answer"))
            }
        };
        dispatched.push(Dispatch { url: upstream.url.clone(), lane, skipped });
    }
    Ok(dispatched)
}

/// A lane and why nothing was enqueued for it, if nothing was.
type Found = (Option<Uuid>, Option<&'static str>);

/// The lane whose job waits now, or why there is none.
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
    if !mode.is_for(upstream) {
        return Ok((None, Some("its direction or its backfill flag excludes this mode")));
    }
    let settings = upstream.settings(deployment);
    let kind = full_or_backfill(db, upstream, mode, &settings).await?;
    let lane = lane::ensure(db, upstream, kind, &settings).await?;
    if lane.status == "syncing" && !lane.is_stale {
        // It may be waiting for its next attempt.
        let hurried = is_manual && queue::hurry_lane(db, lane.id, kind).await?;
        return Ok((Some(lane.id), (!hurried).then_some("already syncing")));
    }
    if lane.is_resting && !is_manual {
        return Ok((None, Some("resting after an error")));
    }
    if kind == LaneKind::Backfill && lane.is_complete() {
        return Ok((None, Some("complete")));
    }
    if kind == LaneKind::Full {
        let week = settings.chunk_max_hours.max(168);
        let hours = if upstream.negentropy { settings.backfill_since_hours } else { week };
        lane::begin_full(db, lane.id, hours).await?;
    }
    let pushed = {
        let mut connection = db.acquire().await?;
        queue::push_lane(&mut connection, lane.id, kind, after).await?
    };
    match pushed {
        Some(_) => Ok((Some(lane.id), None)),
        None if is_manual && queue::hurry_lane(db, lane.id, kind).await? => {
            Ok((Some(lane.id), None))
        }
        None => Ok((Some(lane.id), Some("already waiting"))),
    }
}

/// A full run of a relay that is polled finishes its history first.
async fn full_or_backfill(
    db: &PgPool,
    upstream: &Upstream,
    mode: LaneKind,
    settings: &Settings,
) -> Result<LaneKind, sqlx::Error> {
    if mode != LaneKind::Full || upstream.negentropy {
        return Ok(mode);
    }
    let backfill = lane::ensure(db, upstream, LaneKind::Backfill, settings).await?;
    Ok(if backfill.is_complete() { LaneKind::Full } else { LaneKind::Backfill })
}
