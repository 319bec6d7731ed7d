//! Realtime: the events published since the last run, by polling. The cursor is the start of the
//! last run that received every page. After an outage, several runs catch up in ascending windows.
//! A window that takes longer than one job is continued by the next one.

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::mirror::{
    lane::{self, Ending, LaneKind, Walked},
    upstream::settings::Settings,
};

use super::{
    backfill::{Keep, asked, retry, walk_through},
    error::StepError,
    lane::{Done, Run},
    page::{FUTURE, Walk},
    report::Report,
};

/// Returns the second at which a run begins. `backfilled_from` is where the history lane began, if
/// there is one; it matters for the first run only.
fn since(now: i64, cursor: Option<i64>, backfilled_from: Option<i64>, settings: &Settings) -> i64 {
    let overlap = i64::try_from(settings.resume_overlap_seconds).unwrap_or(i64::MAX);
    let window = 60 * i64::try_from(settings.polling_window_minutes).unwrap_or(i64::MAX / 60);
    let recent = now - window;
    match (cursor, backfilled_from) {
        (Some(cursor), _) => recent.min(cursor - overlap),
        // The first run leaves no gap between this lane and the history lane.
        (None, Some(from)) => recent.min(from - overlap),
        (None, None) => recent,
    }
    .max(0)
}

/// Returns the window of a run that begins at `since`. A window that does not reach until now ends
/// later than the cursor, so that every window raises it.
fn window(now: i64, since: i64, cursor: Option<i64>, chunk: i64) -> Walked {
    let end = (since + chunk).max(cursor.map_or(since, |cursor| cursor + chunk / 2));
    let (until, cursor) = if end >= now { (now + FUTURE, now) } else { (end, end) };
    Walked { since, until, at: until, cursor }
}

/// Does the next run of a realtime lane, or continues a window that an earlier job has begun.
pub(super) async fn run(run: &Run<'_>, report: &mut Report) -> Result<Done, StepError> {
    let now = run.now();
    let walked = match run.lease.lane.walked() {
        Some(walked) => walked,
        None => begin(run, now).await?,
    };
    let filter = run.settings.download_filter();
    let asked = asked(run, run.learned, &filter, (walked.since, Some(walked.at)), now);
    let mut walk = Walk::new(asked);
    let part = (walked.since, walked.at);
    let is_over = walk_through(run, &mut walk, part, report, Keep::Window(walked)).await?;
    let events = &report.events;
    let mut result = json!({
        "since": walked.since, "until": walked.at, "received": events.received(),
        "stored": events.stored,
    });
    if !is_over {
        result["unfinished"] = json!(true);
        return Ok(Done { ending: Ending::GoesOn(Duration::ZERO), result });
    }
    report.progress.last_download = walk.newest;
    report.progress.cursor_at = Some(walked.cursor);
    report.progress.method = Some("polling");
    let is_current = walked.until > walked.cursor;
    if is_current && run.lease.lane.has_due_gap && !run.is_long() {
        result["gap"] = retried(run, report).await?;
    }
    let ending = if is_current {
        Ending::Rests { is_complete: false }
    } else {
        Ending::GoesOn(Duration::ZERO)
    };
    Ok(Done { ending, result })
}

/// Retries a gap. The run has succeeded by now, whatever becomes of the gap.
async fn retried(run: &Run<'_>, report: &mut Report) -> Result<Value, StepError> {
    match retry(run, report).await {
        Err(StepError::LeaseLost) => Err(StepError::LeaseLost),
        Err(error) => {
            let url = &run.upstream.url;
            tracing::warn!(url, %error, "could not retry a gap; the run of new events has succeeded");
            Ok(json!({ "failed": error.to_string() }))
        }
        Ok(retried) => Ok(json!(retried)),
    }
}

async fn begin(run: &Run<'_>, now: i64) -> Result<Walked, StepError> {
    let cursor = run.lease.lane.cursor_at;
    let backfilled_from = match cursor {
        Some(_) => None,
        None => backfilled_from(run).await?,
    };
    let since = since(now, cursor, backfilled_from, run.settings);
    let chunk = 3600 * i64::try_from(run.settings.polling_chunk_hours).unwrap_or(i64::MAX / 3600);
    Ok(window(now, since, cursor, chunk))
}

/// Returns the second at which the history lane began, if there is one.
async fn backfilled_from(run: &Run<'_>) -> Result<Option<i64>, StepError> {
    let lanes = lane::states_of(&run.context.db, run.upstream.id, 600).await?;
    let backfill = lanes.iter().find(|lane| lane.lane == LaneKind::Backfill);
    Ok(backfill.and_then(|lane| lane.backfill_started_at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_window_raises_the_cursor_up_to_now() {
        let now = 10_000_000;
        for overlap in [0, 300, 7200, 100_000] {
            for chunk in [3600, 7200, 86_400] {
                let mut cursor = now - 500_000;
                let mut windows = 0;
                while cursor < now {
                    let next = window(now, cursor - overlap, Some(cursor), chunk);
                    assert!(next.cursor > cursor, "{overlap} {chunk}");
                    assert!(next.since <= cursor && next.until >= next.cursor);
                    (cursor, windows) = (next.cursor, windows + 1);
                }
                assert!(windows <= 1 + 2 * 500_000 / chunk);
            }
        }
    }

    #[test]
    fn a_run_begins_where_nothing_can_be_missed() {
        let settings = Settings::default();
        let now = 1_000_000;
        assert_eq!(since(now, None, None, &settings), now - 900);
        assert_eq!(since(now, None, Some(now - 5000), &settings), now - 5300);
        assert_eq!(since(now, Some(now - 60), None, &settings), now - 900);
        assert_eq!(since(now, Some(now - 7200), Some(now - 9000), &settings), now - 7500);
        assert_eq!(since(100, None, None, &settings), 0);
    }
}
