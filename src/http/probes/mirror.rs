//! The metrics of the mirror. They are read from the ledger, so every process reports the same
//! values.

use metrics::{counter, gauge};
use tender_jobs::mirror::{
    lane::{self, LaneKind, LaneState},
    upstream,
};

use super::Api;

#[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
pub(super) async fn measure(api: &Api) -> Result<(), sqlx::Error> {
    let lanes = lane::states(&api.db, 60 * api.config.mirror.stale_threshold_minutes).await?;
    for kind in [LaneKind::MODES.as_slice(), &[LaneKind::Live]].concat() {
        for status in ["idle", "syncing", "completed", "error"] {
            let of = lanes.iter().filter(|lane| lane.lane == kind && lane.status == status);
            gauge!("tender_lanes", "lane" => kind.as_str(), "status" => status)
                .set(of.count() as f64);
        }
    }
    let stale = lanes.iter().filter(|lane| lane.is_stale).count();
    gauge!("tender_lanes_stale").set(stale as f64);
    for lane in &lanes {
        of_lane(lane);
    }
    let connections = upstream::connections(&api.db).await?;
    for state in ["connecting", "open", "waiting", "closed"] {
        let of = connections.iter().filter(|one| one.state == state).count();
        gauge!("tender_upstream_connections", "state" => state).set(of as f64);
    }
    Ok(())
}

#[expect(clippy::cast_precision_loss, reason = "seconds and per cent")]
fn of_lane(lane: &LaneState) {
    let (url, kind) = (lane.url.clone(), lane.lane.as_str());
    let failed = f64::from(u8::from(lane.status == "error"));
    gauge!("tender_lane_failed", "upstream" => url.clone(), "lane" => kind).set(failed);
    if let Some(age) = lane.cursor_age {
        gauge!("tender_cursor_age_seconds", "upstream" => url.clone()).set(age as f64);
    }
    if let Some(progress) = lane.progress {
        gauge!("tender_backfill_ratio", "upstream" => url.clone(), "lane" => kind)
            .set(progress / 100.0);
    }
    if lane.lane == LaneKind::Upload {
        gauge!("tender_uploads_pending", "upstream" => url.clone()).set(lane.upload_pending as f64);
    }
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
