//! The retry of gaps. One job retries the ids that are due, or one window.
//!
//! ```text
//!  due ── taken: the next retry is 1 h up to 24 h away ──┬─ finished ──────────▶ replaced by what was found
//!   ▲                                                    ├─ failed, or died ───▶ waits
//!   └── continued: the rest, or two halves ◀─────────────┘ came forward, not over
//! ```

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};
use tender_jobs::mirror::{
    event::EventId,
    filter::Filter,
    lane::{
        LaneKind,
        gap::{self, Due, Finished, Gap, GapKind, Share},
    },
    upstream,
};
use tokio::sync::mpsc;

use super::{
    Span, Way, asked_length, lengths,
    poll::{Keep, poll_as},
    reconcile::{UNDELIVERED, reconcile},
};
use crate::mirror::{
    connection::Connection,
    error::StepError,
    fetch::{self, How, Wanted},
    lane::{Run, under_lease},
    report::Report,
};

/// The most ids that one job retries.
const IDS: i64 = 1000;
/// The shortest part that is taken of a longer span, in seconds.
const PART: i64 = 3600;

/// Retries the gaps that are due. Returns the result for people, or `None` if no gap is due. The
/// gaps of a retry that fails are not due any more; those of an upstream that cannot be reached stay
/// due.
pub(in crate::mirror) async fn retry(
    run: &Run<'_>,
    report: &mut Report,
) -> Result<Option<Value>, StepError> {
    let db = &run.context.db;
    let downloads = run.upstream.direction.downloads();
    let by_negentropy = upstream::tries_negentropy(db, run.upstream.id).await?;
    if !downloads && !by_negentropy {
        return Ok(None);
    }
    let connection = run.context.connections.get(run.upstream).await?;
    let seconds = asked_length(run, by_negentropy, lengths(run, by_negentropy).next).max(PART);
    let share = Share { seconds, ids: if downloads { IDS } else { 0 } };
    match under_lease(gap::take_due(db, run.lease, share).await?)? {
        None => Ok(None),
        Some(Due::Ids(due)) => Ok(Some(retry_ids(run, &connection, &due, report).await?)),
        Some(Due::Window { kind, since, until }) => {
            let compares = by_negentropy && compares(run, kind);
            let is_done = retry_window(run, Span { since, until }, compares, report).await?;
            Ok(Some(json!({ "retried": [since, until], "unfinished": !is_done })))
        }
    }
}

/// Whether a gap of this kind is compared. A second that the upstream does not give as a whole is polled,
/// and so is everything of a lane without a history.
fn compares(run: &Run<'_>, kind: GapKind) -> bool {
    let has_history = run.lease.lane.kind != LaneKind::Realtime;
    has_history && (kind == GapKind::Span || !run.upstream.direction.downloads())
}

/// Requests ids again.
async fn retry_ids(
    run: &Run<'_>,
    connection: &Connection,
    due: &HashMap<EventId, (i64, i64)>,
    report: &mut Report,
) -> Result<Value, StepError> {
    let (sender, ids) = mpsc::channel(due.len().max(1));
    for id in due.keys() {
        let _fits = sender.try_send(*id);
    }
    drop(sender);
    let mut intake = run.intake();
    let (filter, waiting) = (run.settings.download_filter(), HashSet::new());
    let fetched = fetch::fetch(connection, ids, how(run, &filter, &waiting), &mut intake).await;
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
    Ok(result)
}

/// Does a window again: `compares` says whether by negentropy. Returns whether it is finished; if not,
/// the rest of it is due, or both of its halves if it is too large for the upstream.
async fn retry_window(
    run: &Run<'_>,
    span: Span,
    compares: bool,
    report: &mut Report,
) -> Result<bool, StepError> {
    let way = if compares {
        reconcile(run, span, report).await?
    } else {
        poll_as(run, span, report, Keep::Gaps).await?
    };
    let at = match way {
        Way::Done { proven: Some(part), .. } if part.span.since > span.since => None,
        Way::Done { .. } => return Ok(true),
        Way::Unfinished | Way::Cut => None,
        Way::Halve { .. } => {
            report.is_ahead = true;
            Some(span.since + span.seconds() / 2)
        }
    };
    let continued = gap::continue_due(&run.context.db, run.lease, span.since, at).await?;
    under_lease(continued)?;
    Ok(false)
}

/// Returns how this lane fetches ids.
pub(super) fn how<'a>(run: &Run<'_>, filter: &'a Filter, waiting: &'a HashSet<EventId>) -> How<'a> {
    let size = usize::try_from(run.settings.batch_size).unwrap_or(usize::MAX);
    How { size, wanted: Wanted { filter, limits: run.settings.limits() }, waiting }
}
