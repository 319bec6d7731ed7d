//! Realtime: what was published since the last run, by polling. The cursor is the start of the last run
//! that got every page; an outage is caught up in ascending windows.

use std::time::Duration;

use serde_json::json;
use tender_jobs::{
    lane::{Ending, Progress},
    upstream::settings::Settings,
};

use super::{
    backfill::{SHORTEST, count, page_limit},
    error::StepError,
    intake::Intake,
    lane::{Done, Run},
    page::{Asked, Walk},
};

/// Where a run begins. `backfilled_from` is where the history lane began, if there is one.
fn since(now: i64, cursor: Option<i64>, backfilled_from: Option<i64>, settings: &Settings) -> i64 {
    let overlap = i64::try_from(settings.resume_overlap_seconds).unwrap_or(i64::MAX);
    let window = 60 * i64::try_from(settings.polling_window_minutes).unwrap_or(i64::MAX / 60);
    let recent = now - window;
    match (cursor, backfilled_from) {
        (Some(cursor), _) => recent.min(cursor - overlap),
        // No gap may open between the lanes.
        (None, Some(from)) => recent.min(from - overlap),
        (None, None) => recent,
    }
    .max(0)
}

pub(super) async fn run(run: &Run<'_>, progress: &mut Progress) -> Result<Done, StepError> {
    let now = run.now().await?;
    let backfilled = backfilled_from(run).await?;
    let since = since(now, run.lease.lane.cursor_at, backfilled, run.settings);
    let usual = 3600 * i64::try_from(run.settings.polling_chunk_hours).unwrap_or(i64::MAX / 3600);
    let chunk = run.lease.lane.window_seconds.unwrap_or(usual).min(usual);
    let until = (now - since > chunk).then_some(since + chunk);
    let filter = run.settings.download_filter();
    let connection = run.context.connections.get(run.upstream).await?;
    let asked = Asked {
        filter: &filter,
        since,
        until,
        limit: page_limit(run),
        silence: run.settings.polling_timeout(),
        limits: run.settings.limits(),
    };
    let mut intake = Intake::new(&run.context.db, run.upstream.id);
    let mut walk = Walk::new(asked, now);
    let walked = loop {
        match walk.next(&connection, &mut intake).await {
            Ok(Some(_)) if run.is_long() => break Ok(false),
            Ok(Some(_)) => {}
            Ok(None) => break Ok(true),
            Err(error) => break Err(error),
        }
    };
    count(progress, &intake.settle().await?);
    if !walked? {
        return Ok(shorter(now - since, chunk, progress));
    }
    progress.window = Some((usual, 0));
    progress.violations += walk.violations + connection.take_strays();
    progress.saturated_seconds += walk.saturated_seconds;
    progress.last_download = walk.newest;
    // In a window that ends in the past, everything up to its end was asked for.
    progress.cursor_at = Some(until.unwrap_or(now));
    progress.method = Some("polling");
    let ending = match until {
        Some(_) => Ending::GoesOn(Duration::ZERO),
        None => Ending::Rests { is_complete: false },
    };
    let result = json!({
        "since": since, "until": until, "received": progress.received, "stored": progress.stored,
    });
    Ok(Done { ending, more: Vec::new(), result })
}

/// More than one job can walk through: the same again, from its beginning, in shorter windows.
fn shorter(span: i64, chunk: i64, progress: &mut Progress) -> Done {
    let seconds = (span.min(chunk) / 2).max(SHORTEST);
    progress.window = Some((seconds, 0));
    let result = json!({ "unfinished": true, "seconds": seconds, "stored": progress.stored });
    Done { ending: Ending::GoesOn(Duration::ZERO), more: Vec::new(), result }
}

/// When the history lane began.
async fn backfilled_from(run: &Run<'_>) -> Result<Option<i64>, StepError> {
    let lanes = tender_jobs::lane::states_of(&run.context.db, run.upstream.id, 600).await?;
    let backfill = lanes.iter().find(|lane| lane.lane == tender_jobs::lane::LaneKind::Backfill);
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
