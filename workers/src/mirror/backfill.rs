//! History, window by window, newest first: by negentropy if the upstream supports it, else by
//! polling, unless the upstream only takes events. The lane's `backfill_until` falls with each window, and with each page of a window. If
//! an upstream turns out not to support NIP-77, the same window is polled under the same lease, if at all.
//!
//! - `length`: how long the windows are. `reconcile`, `poll`: the two ways to do one. `retry`: the gaps that were left.

mod length;
pub(crate) mod poll;
mod reconcile;
mod retry;

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::mirror::{
    lane::{Ending, Lane, LaneKind, NextWindow, Progress},
    upstream::{self, settings::Settings},
};

use super::{
    error::StepError,
    lane::{Done, Run},
    report::Report,
};

pub(crate) use length::{Done as DoneWindow, Effort, Lengths, SHORTEST};
pub(super) use poll::{Keep, asked, request, walk_through};
pub(super) use retry::retry;

/// A window of history. Both ends are inclusive, so that neighbours share a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) since: i64,
    pub(crate) until: i64,
}

impl Span {
    pub(crate) fn seconds(self) -> i64 {
        self.until - self.since
    }
}

/// Returns the window that ends where history is complete. It is `length` seconds long, but does
/// not reach beyond the target.
pub(crate) fn next_span(until: i64, target: i64, length: i64) -> Span {
    Span { since: (until - length).max(target), until }
}

/// The part of a window that a reconciliation has proven.
struct Proven {
    span: Span,
    /// The number of the upstream's events that were revealed.
    events: usize,
    /// The number of events of the window, ours and the upstream's, whose ids were in memory.
    held: usize,
    took: Duration,
}

/// How a window ended.
enum Way {
    Done {
        method: &'static str,
        effort: Effort,
        /// By negentropy: the part of the window that was proven.
        proven: Option<Proven>,
        result: Value,
    },
    /// The window holds more pages than one job can walk. The next job continues it.
    Unfinished,
    /// The window holds more events than one job can fetch. It is repeated with a shorter length, and lacks fewer
    /// events then.
    Cut,
    /// The window is too large for the upstream or for us. It is repeated with a shorter length.
    Halve {
        /// The most records that the upstream accepts, if it says so.
        most: Option<u64>,
        /// The number of our events in the window.
        items: usize,
    },
}

/// Does the next window of a backfill or full lane.
pub(super) async fn run(run: &Run<'_>, report: &mut Report) -> Result<Done, StepError> {
    let lane = &run.lease.lane;
    let (Some(until), Some(target)) = (lane.backfill_until, lane.backfill_target) else {
        return Err(StepError::Unwanted); // the lane was never started
    };
    if until <= target {
        return complete(run, report).await;
    }
    let by_negentropy = upstream::tries_negentropy(&run.context.db, run.upstream.id).await?;
    if !by_negentropy && !run.upstream.direction.downloads() {
        return Err(StepError::Unwanted); // only a comparison needs no download
    }
    let lengths = lengths(run, by_negentropy);
    let span = next_span(until, target, asked_length(run, by_negentropy, lengths.next));
    let way = if by_negentropy {
        reconcile::reconcile(run, span, report).await?
    } else {
        poll::poll(run, span, report).await?
    };
    let cap = upstream::learned(&run.context.db, run.upstream.id).await?.negentropy_cap;
    Ok(conclude(lane, span, (lengths, cap), way, &mut report.progress))
}

/// Retries a gap of a complete lane, if one is due.
async fn complete(run: &Run<'_>, report: &mut Report) -> Result<Done, StepError> {
    let has_due_gap = run.lease.lane.has_due_gap;
    let retried = if has_due_gap { retry(run, report).await } else { Ok(None) };
    let retried = match retried {
        Err(StepError::Unwanted) => None, // the history stays complete
        retried => retried?,
    };
    let ending = match retried {
        Some(_) => Ending::GoesOn(Duration::ZERO),
        None => Ending::Rests { is_complete: true },
    };
    let result = retried.unwrap_or_else(|| json!({ "complete": true }));
    Ok(Done { ending, result })
}

/// Returns how much of a window is asked for. An upstream that is not known to support NIP-77 is asked for a first window
/// at most: if it needs too long for a longer one, its silence would mean that it does not support NIP-77.
fn asked_length(run: &Run<'_>, by_negentropy: bool, next: i64) -> i64 {
    if by_negentropy && run.upstream.negentropy_verdict != "supported" {
        return next.min(shortest_first(run, true));
    }
    next
}

/// Shortens the windows of a lane if their length may be the reason of an error.
pub(super) fn after_error(run: &Run<'_>, error: &StepError, progress: &mut Progress) {
    match error {
        StepError::TimeOver | StepError::Died { .. } => after_time_over(run, progress),
        error if error.may_concern_length() => after_silence(run, progress),
        _ => {}
    }
}

/// Halves the windows of a lane whose upstream did not give a page, or not its end, if they are longer than a first one.
fn after_silence(run: &Run<'_>, progress: &mut Progress) {
    let by_negentropy = run.upstream.negentropy && run.upstream.negentropy_verdict != "unsupported";
    let (lengths, shortest) = (lengths(run, by_negentropy), shortest_first(run, by_negentropy));
    if lengths.next > shortest {
        progress.window = Some(next_window(lengths.after_silence(shortest, by_negentropy)));
    }
}

/// Halves the windows of a lane whose job reached its time limit, or whose workers died.
fn after_time_over(run: &Run<'_>, progress: &mut Progress) {
    let lengths = lengths(run, run.upstream.negentropy);
    progress.window = Some(next_window(lengths.after_cut(lengths.next)));
}

/// Returns the length of a backfill's first window.
fn shortest_first(run: &Run<'_>, by_negentropy: bool) -> i64 {
    let Settings { negentropy_chunk_hours, polling_chunk_hours, .. } = run.settings;
    seconds(if by_negentropy { *negentropy_chunk_hours } else { *polling_chunk_hours })
}

fn seconds(hours: u64) -> i64 {
    3600 * i64::try_from(hours).unwrap_or(i64::MAX / 3600)
}

/// Returns the lengths of a lane's windows. What was refused concerns reconciliations only.
fn lengths(run: &Run<'_>, by_negentropy: bool) -> Lengths {
    let (lane, settings) = (&run.lease.lane, run.settings);
    let first = match lane.kind {
        LaneKind::Full if by_negentropy => seconds(settings.chunk_max_hours),
        _ => shortest_first(run, by_negentropy),
    };
    let longest = seconds(settings.chunk_max_hours).max(first);
    let refused = lane.window_refused.filter(|_| by_negentropy);
    let first = refused.map_or(first, |refused| first.min(refused / 2));
    let next = lane.window_seconds.unwrap_or(first).min(longest);
    Lengths { next, longest, easy: lane.cheap_windows, refused }
}

fn next_window(lengths: Lengths) -> NextWindow {
    NextWindow { seconds: lengths.next, easy: lengths.easy, refused: lengths.refused }
}

/// Turns the end of a window into the lane's progress and the end of the job. `cap` is the number of events at which
/// the upstream cuts a reconciliation.
fn conclude(
    lane: &Lane,
    span: Span,
    (lengths, cap): (Lengths, Option<i64>),
    way: Way,
    progress: &mut Progress,
) -> Done {
    let again = |result| Done { ending: Ending::GoesOn(Duration::ZERO), result };
    match way {
        Way::Unfinished => again(json!({ "unfinished": [span.since, span.until] })),
        Way::Cut => {
            progress.window = Some(next_window(lengths.after_cut(span.seconds())));
            again(json!({ "unfinished": [span.since, span.until] }))
        }
        Way::Halve { most, items } => {
            let shorter = lengths.after_refusal(span.seconds(), most, items);
            progress.window = Some(next_window(shorter));
            again(json!({ "halved": [span.since, span.until], "seconds": shorter.next }))
        }
        Way::Done { method, effort, proven, mut result } => {
            // The set at which the upstream cuts limits reconciliations only.
            let cap = cap.filter(|_| proven.is_some());
            let Proven { span, events, held, took } =
                proven.unwrap_or(Proven { span, events: 0, held: 0, took: Duration::ZERO });
            let done = DoneWindow { effort, took, seconds: span.seconds(), events, held, cap };
            progress.window = Some(next_window(lengths.after(done)));
            progress.backfill_until = Some(span.since);
            progress.method = Some(method);
            result["window"] = json!([span.since, span.until]);
            result["method"] = json!(method);
            Done { ending: ending(lane, span), result }
        }
    }
}

/// Returns how the job of a finished window ends: the lane rests at its target, else continues.
fn ending(lane: &Lane, span: Span) -> Ending {
    if lane.backfill_target.is_some_and(|target| span.since <= target) {
        return Ending::Rests { is_complete: true };
    }
    Ending::GoesOn(Duration::ZERO)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_go_back_to_the_target_and_not_beyond() {
        assert_eq!(next_span(1000, 0, 300), Span { since: 700, until: 1000 });
        assert_eq!(next_span(100, 0, 300), Span { since: 0, until: 100 });
    }
}
