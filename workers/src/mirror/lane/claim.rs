//! How a job claims its lane.

use std::time::Duration;

use serde_json::json;
use tender_jobs::{
    mirror::{
        Briefing, briefing,
        lane::{self, Claim, Lease},
        upstream::{Learned, Upstream, settings::Settings},
        work,
    },
    queue::{self, Job},
};
use uuid::Uuid;

use crate::{mirror::Context, runtime::outcome};

/// A claimed lane, with its upstream and the settings in effect.
pub(super) struct Claimed {
    pub(super) lease: Box<Lease>,
    pub(super) upstream: Upstream,
    pub(super) settings: Settings,
    pub(super) learned: Learned,
    /// Whether the upstream's NIP-11 document is due.
    pub(super) wants_information: bool,
}

/// Why there is nothing to do for a job whose lane or upstream is gone.
const GONE: &str = "the lane or its upstream was deleted, or the lane has retired";

/// Claims the lane. Returns what it claimed, or the reason why there is nothing to do.
pub(super) async fn claim(
    context: &Context,
    job: &Job,
    lane: Uuid,
) -> Result<Result<Claimed, &'static str>, sqlx::Error> {
    let Some(briefing) = briefing(&context.db, lane).await? else { return Ok(Err(GONE)) };
    let Briefing { deployment, upstream, learned, wants_information } = briefing;
    let deployment = deployment.settings();
    context.connections.learn(deployment.clone());
    let stale = Duration::from_secs(60 * deployment.stale_threshold_minutes);
    let lease = match lane::claim(&context.db, lane, job, stale).await? {
        Claim::Held(lease) => lease,
        Claim::Busy => return Ok(Err("already syncing")),
        Claim::Gone => return Ok(Err(GONE)),
    };
    let settings = upstream.settings(&deployment);
    let kind = lease.lane.kind;
    if lane::identity(kind, &settings) != lease.lane.filter_hash {
        let heir = lane::ensure(&context.db, &upstream, kind, &settings).await?;
        work::push_lane(&context.db, heir.id, kind, Duration::ZERO).await?;
        return Ok(Err("the filter was changed; the lane of the new filter continues"));
    }
    Ok(Ok(Claimed { lease, upstream, settings, learned, wants_information }))
}

/// Ends a job that found nothing to do; this is a success.
pub(super) async fn skip(context: &Context, job: &Job, why: &'static str) {
    tracing::info!(job.id, why, "lane job skipped");
    outcome::count(job, "done");
    let result = json!({ "skipped": why });
    outcome::persist(job, || queue::finish(&context.db, job, &result)).await;
}
