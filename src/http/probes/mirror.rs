//! The metrics of the mirror. They are read from the ledger, so every process reports the same
//! values. Each look makes all of them anew, so a removed upstream leaves none behind.

use metrics::{counter, gauge, with_local_recorder};
use metrics_exporter_prometheus::PrometheusBuilder;
use tender_jobs::{
    mirror::{
        deployment,
        lane::{self, Condition, LaneKind, LaneState},
        upstream::{self, Connection},
    },
    queue,
};

use super::Api;
use crate::telemetry::catalogue;

/// Every condition, as the label `status` names it.
const CONDITIONS: [Condition; 7] = [
    Condition::Idle,
    Condition::Syncing,
    Condition::Stale,
    Condition::Retrying,
    Condition::Completed,
    Condition::Gaps,
    Condition::Error,
];

/// Returns the metrics in the text format of Prometheus.
pub(super) async fn measure(api: &Api) -> Result<String, sqlx::Error> {
    let deployment = deployment::settings(&api.db).await?;
    let lanes = lane::states(&api.db, 60 * deployment.stale_threshold_minutes).await?;
    let connections = upstream::connections(&api.db).await?;
    let now = queue::now(&api.db).await?.timestamp();
    let recorder = PrometheusBuilder::new().build_recorder();
    with_local_recorder(&recorder, || {
        catalogue::describe();
        of_all(&lanes, &connections);
        for lane in &lanes {
            of_counts(lane);
        }
        for lane in lanes.iter().filter(|lane| lane.is_enabled) {
            of_failures(lane);
            of_progress(lane, now);
        }
    });
    Ok(recorder.handle().render())
}

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
fn of_all(lanes: &[LaneState], connections: &[Connection]) {
    for kind in [LaneKind::MODES.as_slice(), &[LaneKind::Live]].concat() {
        for condition in CONDITIONS {
            let of = lanes.iter().filter(|one| one.lane == kind && one.condition() == condition);
            gauge!("tender_lanes", "lane" => kind.as_str(), "status" => condition.as_str())
                .set(of.count() as f64);
        }
    }
    let stale = lanes.iter().filter(|lane| lane.is_stale).count();
    gauge!("tender_lanes_stale").set(stale as f64);
    for state in ["connecting", "open", "waiting", "closed"] {
        let of = connections.iter().filter(|one| one.state == state).count();
        gauge!("tender_upstream_connections", "state" => state).set(of as f64);
    }
}

/// A lane counts as failed until a run succeeds, so a retry does not end the alert. Lanes of disabled
/// upstreams are left out, because they do not work.
fn of_failures(lane: &LaneState) {
    let (url, kind) = (lane.url.clone(), lane.lane.as_str());
    let failed = lane.consecutive_failures > 0;
    gauge!("tender_lane_failed", "upstream" => url.clone(), "lane" => kind)
        .set(f64::from(u8::from(failed)));
    gauge!("tender_lane_failed_attempts", "upstream" => url.clone(), "lane" => kind)
        .set(f64::from(lane.failed_attempts));
    for (missing, number) in
        [("seconds", lane.gap_seconds), ("ids", lane.gap_ids), ("spans", lane.gap_spans)]
    {
        gauge!("tender_lane_gaps", "upstream" => url.clone(), "lane" => kind, "kind" => missing)
            .set(f64::from(number));
    }
}

#[expect(clippy::cast_precision_loss, reason = "seconds and per cent")]
fn of_progress(lane: &LaneState, now: i64) {
    let (url, kind) = (lane.url.clone(), lane.lane.as_str());
    if let Some(age) = lane.cursor_age {
        gauge!("tender_cursor_age_seconds", "upstream" => url.clone()).set(age as f64);
    }
    if let Some(progress) = lane.progress {
        gauge!("tender_backfill_ratio", "upstream" => url.clone(), "lane" => kind)
            .set(progress / 100.0);
        gauge!("tender_backfill_still_seconds", "upstream" => url.clone(), "lane" => kind)
            .set(still(lane, now) as f64);
    }
    if lane.lane == LaneKind::Upload {
        gauge!("tender_uploads_pending", "upstream" => url).set(lane.upload_pending as f64);
    }
}

/// Returns for how many seconds a backfill has not moved; 0 if its history is complete.
fn still(lane: &LaneState, now: i64) -> i64 {
    if lane.progress.is_some_and(|done| done >= 100.0) {
        return 0;
    }
    let moved = lane.progressed_at.map(|at| at.timestamp()).or(lane.backfill_started_at);
    moved.map_or(0, |at| (now - at).max(0))
}

fn of_counts(lane: &LaneState) {
    let (url, kind) = (lane.url.clone(), lane.lane.as_str());
    let count = |name: &'static str, outcome: &'static str, number: i64| {
        counter!(name, "upstream" => url.clone(), "lane" => kind, "outcome" => outcome)
            .absolute(u64::try_from(number).unwrap_or(0));
    };
    for (outcome, number) in [
        ("stored", lane.stored),
        ("duplicate", lane.duplicate),
        ("rejected", lane.rejected),
        ("unavailable", lane.unavailable),
        ("unasked", lane.violations),
    ] {
        count("tender_lane_events_total", outcome, number);
    }
    for (outcome, number) in [
        ("accepted", lane.uploaded),
        ("duplicate", lane.upload_duplicate),
        ("rejected", lane.upload_rejected),
    ] {
        count("tender_lane_uploads_total", outcome, number);
    }
}
