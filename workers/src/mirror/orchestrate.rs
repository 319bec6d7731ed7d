//! Orchestration: enqueues the work of a mode for each upstream that has any, and reports why the
//! others have none.

use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};
use sqlx::PgPool;
use tender_jobs::mirror::{
    deployment,
    lane::{self, Lane, LaneKind},
    upstream::{self, Upstream, settings::Settings},
    work,
};
use uuid::Uuid;

use super::Context;

/// The jobs of one scheduled run start within this time, evenly spread.
const SPREAD: Duration = Duration::from_secs(30);
/// The upstreams whose lanes are read, and whose jobs are enqueued, in one statement.
const PAGE: usize = 500;

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
/// The upstreams, their lanes or the deployment's settings could not be read. Work may have been enqueued.
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
    let spread = if is_manual { Duration::ZERO } else { SPREAD };
    let count = u32::try_from(upstreams.len()).unwrap_or(u32::MAX).max(1);
    let mut delays = (0..count).map(|index| spread * index / count);
    let mut dispatched = Vec::with_capacity(upstreams.len());
    // A page is enqueued soon after its lanes were read: a lane that fails meanwhile must rest.
    for page in upstreams.chunks(PAGE) {
        let steps = decide(db, &deployment, page, mode, is_manual).await?;
        let mut steps: Vec<_> =
            steps.into_iter().zip(&mut delays).map(|(step, after)| step.after(after)).collect();
        push(db, &mut steps, is_manual).await;
        dispatched.extend(page.iter().zip(steps).map(|(upstream, step)| step.of(upstream)));
    }
    Ok(dispatched)
}

/// Decides what each upstream of a page needs.
async fn decide(
    db: &PgPool,
    deployment: &Settings,
    upstreams: &[Upstream],
    mode: LaneKind,
    is_manual: bool,
) -> Result<Vec<Step>, sqlx::Error> {
    let ids: Vec<Uuid> = upstreams.iter().map(|upstream| upstream.id).collect();
    let lanes = lane::working(db, mode, &ids, deployment.stale_threshold_minutes).await?;
    let mut steps = Vec::with_capacity(upstreams.len());
    for upstream in upstreams {
        let step = one(db, deployment, upstream, mode, lanes.get(&upstream.id), is_manual).await;
        steps.push(step.unwrap_or_else(|error| failed(upstream, &error)));
    }
    Ok(steps)
}

/// What becomes of the lane of one upstream.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// Nothing is enqueued, for this reason.
    Skip(Option<Uuid>, &'static str),
    /// A job is to be enqueued, due after this delay.
    Push(Uuid, LaneKind, Duration),
    /// A job was enqueued or made due.
    Pushed(Uuid),
}

impl Step {
    /// Returns the job that is to be enqueued.
    fn job(self) -> Option<(Uuid, LaneKind, Duration)> {
        match self {
            Self::Push(lane, kind, after) => Some((lane, kind, after)),
            _ => None,
        }
    }

    fn after(self, after: Duration) -> Self {
        match self {
            Self::Push(lane, kind, _) => Self::Push(lane, kind, after),
            step => step,
        }
    }

    fn of(self, upstream: &Upstream) -> Dispatch {
        let (lane, skipped) = match self {
            Self::Skip(lane, why) => (lane, Some(why)),
            Self::Push(lane, ..) | Self::Pushed(lane) => (Some(lane), None),
        };
        Dispatch { url: upstream.url.clone(), lane, skipped }
    }
}

fn failed(upstream: &Upstream, error: &sqlx::Error) -> Step {
    tracing::warn!(%error, url = upstream.url, "could not enqueue the work of an upstream");
    Step::Skip(None, DATABASE_ERROR)
}

/// Decides what one upstream needs. `known` is its lane of this mode, if it has one.
async fn one(
    db: &PgPool,
    deployment: &Settings,
    upstream: &Upstream,
    mode: LaneKind,
    known: Option<&Lane>,
    is_manual: bool,
) -> Result<Step, sqlx::Error> {
    if !upstream.enabled {
        return Ok(Step::Skip(None, "disabled"));
    }
    if !upstream.takes_part_in(mode) {
        return Ok(Step::Skip(None, EXCLUDED));
    }
    let settings = upstream.settings(deployment);
    if matches!(mode, LaneKind::Backfill | LaneKind::Full)
        && !upstream.direction.downloads()
        && !upstream::tries_negentropy(db, upstream.id).await?
    {
        return Ok(Step::Skip(None, TAKES_ONLY));
    }
    let kind = full_or_backfill(db, upstream, mode, &settings).await?;
    let known = known.filter(|lane| lane.kind == kind && lane.is_ready(&settings)).cloned();
    let lane = match known {
        Some(lane) => lane,
        None => lane::ensure(db, upstream, kind, &settings).await?,
    };
    next(db, upstream, &lane, &settings, is_manual).await
}

/// Decides what a lane needs.
async fn next(
    db: &PgPool,
    upstream: &Upstream,
    lane: &Lane,
    settings: &Settings,
    is_manual: bool,
) -> Result<Step, sqlx::Error> {
    let (id, kind) = (lane.id, lane.kind);
    if lane.status == "syncing" && !lane.is_stale {
        // The lane's job may be waiting for its retry.
        let hurried = is_manual && work::hurry_lane(db, id, kind).await?;
        return Ok(if hurried {
            Step::Pushed(id)
        } else {
            Step::Skip(Some(id), "already syncing")
        });
    }
    if lane.is_resting && !is_manual {
        return Ok(Step::Skip(None, "resting after an error"));
    }
    if kind == LaneKind::Backfill && lane.is_complete() && !lane.has_due_gap {
        return Ok(Step::Skip(None, "complete"));
    }
    if kind == LaneKind::Backfill && lane::is_running(db, upstream.id, LaneKind::Full).await? {
        return Ok(Step::Skip(None, "a full run compares the history now"));
    }
    if kind == LaneKind::Full {
        let reconciles = upstream::tries_negentropy(db, upstream.id).await?;
        lane::begin_full(db, id, full_hours(settings, reconciles)).await?;
    }
    Ok(Step::Push(id, kind, Duration::ZERO))
}

/// Enqueues the jobs, many in one statement. If that fails, enqueues them one by one: a lane whose key another
/// transaction holds must not stop the others.
async fn push(db: &PgPool, steps: &mut [Step], is_manual: bool) {
    for page in steps.chunks_mut(PAGE) {
        let lanes: Vec<_> = page.iter().filter_map(|step| step.job()).collect();
        if lanes.is_empty() {
            continue;
        }
        let pushed = work::push_lanes(db, &lanes).await;
        let mut pushed = pushed.map(Vec::into_iter).ok();
        for step in page.iter_mut().filter(|step| step.job().is_some()) {
            let is_pushed = pushed.as_mut().and_then(Iterator::next);
            *step = push_one(db, *step, is_pushed, is_manual).await;
        }
    }
}

/// Ends the step of one lane. `is_pushed` says whether its job was enqueued, if that is known.
async fn push_one(db: &PgPool, step: Step, is_pushed: Option<bool>, is_manual: bool) -> Step {
    let Some((lane, kind, after)) = step.job() else { return step };
    let pushed = async {
        let is_pushed = match is_pushed {
            Some(is_pushed) => is_pushed,
            None => work::push_lane(db, lane, kind, after).await?.is_some(),
        };
        Ok::<_, sqlx::Error>(is_pushed || (is_manual && work::hurry_lane(db, lane, kind).await?))
    };
    match pushed.await {
        Ok(true) => Step::Pushed(lane),
        Ok(false) => Step::Skip(Some(lane), "already waiting"),
        Err(error) => {
            tracing::warn!(%error, %lane, "could not enqueue the work of a lane");
            Step::Skip(None, DATABASE_ERROR)
        }
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
