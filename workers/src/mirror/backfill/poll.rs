//! A window by polling: page after page, from new to old.

use serde_json::json;
use tender_jobs::mirror::{
    filter::Filter,
    lane::{self, Progress},
};

use super::{Span, Way};
use crate::mirror::{
    error::StepError,
    lane::{Report, Run},
    page::{Asked, Walk},
};

/// Polls a window. Stores how far it has come at every `checkpoint_interval` events.
pub(super) async fn poll(run: &Run<'_>, span: Span, report: &mut Report) -> Result<Way, StepError> {
    let now = run.now().await?;
    let filter = run.settings.download_filter();
    let connection = run.context.connections.get(run.upstream).await?;
    let asked = asked(run, &filter, span.since, Some(span.until));
    let (mut walk, mut intake) = (Walk::new(asked, now), run.intake());
    let mut since_checkpoint = 0;
    while let Some(oldest) = walk.next(&connection, &mut intake).await? {
        let received = intake.settle().await?;
        since_checkpoint += received.received();
        report.events.add(&received);
        let is_due = since_checkpoint >= interval(run);
        if is_due || run.is_long() {
            // Every event from this second on is stored, because pages run from new to old.
            report.progress.backfill_until = Some(oldest);
        }
        if run.is_long() {
            return Err(StepError::TimeOver);
        }
        if is_due {
            save(run, &mut report.progress).await?;
            since_checkpoint = 0;
        }
    }
    report.progress.violations += walk.violations + connection.take_strays();
    report.progress.saturated_seconds += walk.saturated_seconds;
    Ok(Way::Done {
        method: "polling",
        is_cheap: is_cheap(walk.first_page, asked.limit),
        result: json!({ "received": report.events.received() }),
        more: Vec::new(),
    })
}

/// Returns the request for a window. A window without `until` is open-ended.
pub(in crate::mirror) fn asked<'a>(
    run: &Run<'_>,
    filter: &'a Filter,
    since: i64,
    until: Option<i64>,
) -> Asked<'a> {
    Asked {
        filter,
        since,
        until,
        limit: page_limit(run),
        silence: run.settings.polling_timeout(),
        limits: run.settings.limits(),
    }
}

/// Returns the events of a page: the configured limit, or the upstream's advertised limit if that
/// is lower.
fn page_limit(run: &Run<'_>) -> u64 {
    let information = run.upstream.information.as_ref();
    let advertised = information.and_then(|of| of["max_limit"].as_u64()).filter(|most| *most > 0);
    run.settings.poll_page_limit.min(advertised.unwrap_or(u64::MAX))
}

fn interval(run: &Run<'_>) -> i64 {
    i64::try_from(run.settings.checkpoint_interval).unwrap_or(i64::MAX)
}

/// A window is cheap if its first page is less than half full.
fn is_cheap(first_page: Option<usize>, limit: u64) -> bool {
    u64::try_from(first_page.unwrap_or(0)).is_ok_and(|size| 2 * size < limit)
}

/// Writes the progress so far, and starts a new one.
async fn save(run: &Run<'_>, progress: &mut Progress) -> Result<(), StepError> {
    let so_far = std::mem::take(progress);
    if !lane::checkpoint(&run.context.db, run.lease, &so_far).await? {
        return Err(StepError::LeaseLost);
    }
    Ok(())
}
