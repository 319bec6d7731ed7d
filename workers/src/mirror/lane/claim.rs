//! How a job claims its lane.

use std::time::Duration;

use serde_json::json;
use tender_jobs::{
    mirror::{
        deployment,
        lane::{self, Claim, Lease},
        upstream::{self, Upstream, settings::Settings},
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
}

/// Claims the lane. Returns what it claimed, or the reason why there is nothing to do.
pub(super) async fn claim(
    context: &Context,
    job: &Job,
    lane: Uuid,
) -> Result<Result<Claimed, &'static str>, sqlx::Error> {
    let deployment = deployment::settings(&context.db).await?;
    context.connections.learn(deployment.clone());
    let stale = Duration::from_secs(60 * deployment.stale_threshold_minutes);
    let lease = match lane::claim(&context.db, lane, job, stale).await? {
        Claim::Held(lease) => lease,
        Claim::Busy => return Ok(Err("already syncing")),
        Claim::Gone => return Ok(Err("the lane was deleted or has retired")),
    };
    let Some(upstream) = upstream::find(&context.db, lease.lane.upstream_id).await? else {
        return Ok(Err("the upstream was deleted"));
    };
    let settings = upstream.settings(&deployment);
    let kind = lease.lane.kind;
    if lane::identity(kind, &settings) != lease.lane.filter_hash {
        let heir = lane::ensure(&context.db, &upstream, kind, &settings).await?;
        work::push_lane(&context.db, heir.id, kind, Duration::ZERO).await?;
        return Ok(Err("the filter was changed; the lane of the new filter continues"));
    }
    Ok(Ok(Claimed { lease, upstream, settings }))
}

/// Ends a job that found nothing to do; this is a success.
pub(super) async fn skip(context: &Context, job: &Job, why: &'static str) {
    tracing::info!(job.id, why, "lane job skipped");
    outcome::count(job, "done");
    let result = json!({ "skipped": why });
    outcome::persist(job, || queue::finish(&context.db, job, &result)).await;
}
