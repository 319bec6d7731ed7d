//! What a lane tells people beyond its state: failures, and what it knows to be missing.

use tender_jobs::mirror::lane::{Condition, LaneState};

/// Returns the share of the history that is done, in per cent; `None` for a lane without a backfill, and
/// for one that does not work and has done nothing: `0.0 %` would look like a beginning.
pub(crate) fn progress(lane: &LaneState) -> Option<f64> {
    let is_failing =
        matches!(lane.condition(), Condition::Error | Condition::Retrying | Condition::Stale);
    lane.progress.filter(|done| *done > 0.0 || !is_failing)
}

/// Returns which attempt failed, such as `attempt 2 of 5 failed`; or how often the lane failed in a row.
pub(crate) fn failure(lane: &LaneState) -> Option<String> {
    lane.last_error.as_ref()?;
    Some(match (lane.status.as_str(), lane.consecutive_failures) {
        ("error", 1) => "failed".to_owned(),
        ("error", times) => format!("failed {times} times in a row"),
        (_, times) if lane.failed_attempts == 0 => {
            format!("failed {times} times in a row; trying again")
        }
        _ => format!("attempt {} of {} failed", lane.failed_attempts, lane.allowed_attempts),
    })
}

/// Returns what the upstream said of the last upload that it refused, and how many uploads wait; the
/// time of the refusal is `when`. `None` if it refused none and none waits.
pub(crate) fn uploads(lane: &LaneState, when: &str) -> Option<String> {
    let refusal = lane.upload_refusal.as_ref();
    let refusal = refusal.map(|words| format!("its last refusal of an upload {when}: {words}"));
    let waiting =
        (lane.upload_pending > 0).then(|| format!("uploads to retry: {}", lane.upload_pending));
    let told: Vec<String> = refusal.into_iter().chain(waiting).collect();
    (!told.is_empty()).then(|| told.join("; "))
}

/// Returns what is missing, by kind, such as `1 second with more events than the upstream gives`; `None`
/// without a gap.
pub(crate) fn gaps(lane: &LaneState) -> Option<String> {
    let kinds = [
        (
            lane.gap_seconds,
            "second with more events than the upstream gives",
            "seconds with more events than the upstream gives",
        ),
        (
            lane.gap_ids,
            "event that the upstream listed and did not deliver",
            "events that the upstream listed and did not deliver",
        ),
        (
            lane.gap_spans,
            "window without a proof that it is complete",
            "windows without a proof that they are complete",
        ),
    ];
    let told = kinds
        .into_iter()
        .filter(|(number, _, _)| *number > 0)
        .map(|(number, one, many)| format!("{number} {}", if number == 1 { one } else { many }));
    let told: Vec<String> = told.collect();
    (!told.is_empty()).then(|| told.join(", "))
}
