//! Realtime: the events published since the last run, by polling. The cursor is the start of the
//! last run that received every page. After an outage, several runs catch up in ascending windows.

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::mirror::{
    lane::{self, Ending, LaneKind, Progress},
    upstream::settings::Settings,
};

use super::{
    backfill::{SHORTEST, asked},
    error::StepError,
    lane::{Done, Report, Run},
    page::Walk,
};

/// Returns the second at which a run begins. `backfilled_from` is where the history lane began, if
/// there is one.
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

/// Does the next run of a realtime lane.
pub(super) async fn run(run: &Run<'_>, report: &mut Report) -> Result<Done, StepError> {
    let now = run.now().await?;
    let since = since(now, run.lease.lane.cursor_at, backfilled_from(run).await?, run.settings);
    let usual = 3600 * i64::try_from(run.settings.polling_chunk_hours).unwrap_or(i64::MAX / 3600);
    let chunk = run.lease.lane.window_seconds.unwrap_or(usual).min(usual);
    let until = (now - since > chunk).then_some(since + chunk);
    let filter = run.settings.download_filter();
    let mut walk = Walk::new(asked(run, &filter, since, until), now);
    let walked = walk_all(run, &mut walk, report).await?;
    let events = &report.events;
    if !walked {
        let result = json!({ "unfinished": true, "stored": events.stored });
        return Ok(shorter(now - since, chunk, &mut report.progress, result));
    }
    let result = json!({
        "since": since, "until": until, "received": events.received(), "stored": events.stored,
    });
    report.progress.window = Some((usual, 0));
    report.progress.last_download = walk.newest;
    // A window that ends in the past was asked for everything up to its end.
    report.progress.cursor_at = Some(until.unwrap_or(now));
    report.progress.method = Some("polling");
    let ending = match until {
        Some(_) => Ending::GoesOn(Duration::ZERO),
        None => Ending::Rests { is_complete: false },
    };
    Ok(Done { ending, more: Vec::new(), result })
}

/// Walks through the pages and stores their events. Returns false if the window holds more pages
/// than one job can walk through.
async fn walk_all(
    run: &Run<'_>,
    walk: &mut Walk<'_>,
    report: &mut Report,
) -> Result<bool, StepError> {
    let connection = run.context.connections.get(run.upstream).await?;
    let mut intake = run.intake();
    let walked = loop {
        match walk.next(&connection, &mut intake).await {
            Ok(Some(_)) if run.is_long() => break Ok(false),
            Ok(Some(_)) => {}
            Ok(None) => break Ok(true),
            Err(error) => break Err(error),
        }
    };
    // Pages that were received before an error are stored too.
    report.events.add(&intake.settle().await?);
    if !walked? {
        return Ok(false);
    }
    report.progress.violations += walk.violations + connection.take_strays();
    report.progress.saturated_seconds += walk.saturated_seconds;
    Ok(true)
}

/// Repeats an unfinished window from its beginning, in shorter windows.
fn shorter(span: i64, chunk: i64, progress: &mut Progress, mut result: Value) -> Done {
    let seconds = (span.min(chunk) / 2).max(SHORTEST);
    progress.window = Some((seconds, 0));
    result["seconds"] = json!(seconds);
    Done { ending: Ending::GoesOn(Duration::ZERO), more: Vec::new(), result }
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
