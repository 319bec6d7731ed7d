//! The retry of gaps. One job retries the ids that are due, or one window.

use std::collections::HashSet;

use serde_json::{Value, json};
use tender_jobs::mirror::{
    event::EventId,
    filter::Filter,
    lane::gap::{self, Finished, Gap},
};
use tokio::sync::mpsc;

use super::{
    Span, Way,
    poll::{Keep, poll_as},
    reconcile::{UNDELIVERED, reconcile},
};
use crate::mirror::{
    error::StepError,
    fetch::{self, How, Wanted},
    lane::Run,
    report::Report,
};

/// The most ids that one job retries.
const IDS: i64 = 1000;

/// Retries the gaps that are due. Returns the result for people, or `None` if no gap is due.
pub(in crate::mirror) async fn retry(
    run: &Run<'_>,
    report: &mut Report,
) -> Result<Option<Value>, StepError> {
    let (db, lane) = (&run.context.db, run.lease.lane.id);
    if let Some((since, until)) = gap::due_window(db, lane).await? {
        let is_done = retry_window(run, Span { since, until }, report).await?;
        return Ok(Some(json!({ "retried": [since, until], "unfinished": !is_done })));
    }
    let due = gap::due_ids(db, lane, IDS).await?;
    if due.is_empty() || !run.upstream.direction.downloads() {
        return Ok(None);
    }
    let (sender, ids) = mpsc::channel(due.len());
    for id in due.keys() {
        let _fits = sender.try_send(*id);
    }
    drop(sender);
    let (connection, mut intake) = (run.context.connections.get(run.upstream).await?, run.intake());
    let (filter, waiting) = (run.settings.download_filter(), HashSet::new());
    let fetched = fetch::fetch(&connection, ids, how(run, &filter, &waiting), &mut intake).await;
    report.events.add(&intake.settle().await?);
    let missing = match fetched {
        Ok(fetched) => fetched.undelivered,
        Err(StepError::Protocol(_)) => due.keys().copied().collect(), // delivers none of them
        Err(error) => return Err(error),
    };
    let result = json!({ "retried_ids": due.len(), "undelivered": missing.len() });
    let gap = |id: &EventId| Gap::id(*id, due[id].0, due[id].1, UNDELIVERED);
    let gaps = missing.iter().map(gap).collect();
    report.progress.finished.push(Finished::retry(due.keys().copied().collect(), gaps));
    Ok(Some(result))
}

/// Does a window again. Returns whether it is finished.
async fn retry_window(run: &Run<'_>, span: Span, report: &mut Report) -> Result<bool, StepError> {
    let way = if run.upstream.direction.downloads() {
        poll_as(run, span, report, Keep::Gaps).await?
    } else {
        reconcile(run, span, report).await?
    };
    Ok(matches!(way, Way::Done { .. }))
}

/// Returns how this lane fetches ids.
pub(super) fn how<'a>(run: &Run<'_>, filter: &'a Filter, waiting: &'a HashSet<EventId>) -> How<'a> {
    let size = usize::try_from(run.settings.batch_size).unwrap_or(usize::MAX);
    How { size, wanted: Wanted { filter, limits: run.settings.limits() }, waiting }
}
