//! History, window by window, newest first: by negentropy if the upstream supports it, else by
//! polling, unless the upstream only takes events. The lane's `backfill_until` falls with each window, and with each page of a window. If
//! an upstream turns out not to support NIP-77, the same window is polled under the same lease, if at all.

pub(crate) mod poll;
mod reconcile;
mod retry;

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::mirror::{
    lane::{Ending, Lane, LaneKind, Progress},
    upstream,
};

use super::{
    error::StepError,
    lane::{Done, Run},
    report::Report,
};

pub(super) use poll::{Keep, asked, request, walk_through};
pub(super) use retry::retry;

/// The shortest window that a refusal makes, in seconds.
pub(crate) const SHORTEST: i64 = 60;
/// The number of cheap windows in a row after which windows get longer.
const CHEAP_RUN: i32 = 3;

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

/// How a window ended.
enum Way {
    Done {
        method: &'static str,
        is_cheap: bool,
        /// By negentropy: the part of the window that was proven, and the number of the upstream's
        /// events in it.
        revealed: Option<(Span, usize)>,
        result: Value,
    },
    /// The window holds more events than one job can fetch. It is repeated, and lacks fewer events
    /// then, or is shorter.
    Cut,
    /// The window is too large for the upstream or for us. It is repeated with a shorter length.
    Halve {
        /// The most records that the upstream accepts, if it says so.
        most: Option<u64>,
        /// The number of our events in the window.
        items: usize,
    },
}

/// The lengths of windows, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Lengths {
    pub(crate) next: i64,
    pub(crate) longest: i64,
    /// The number of events at which the upstream cuts a reconciliation.
    pub(crate) cap: Option<i64>,
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
    let learned = upstream::learned(&run.context.db, run.upstream.id).await?;
    let lengths = Lengths { cap: learned.negentropy_cap, ..lengths(run, by_negentropy) };
    let span = next_span(until, target, lengths.next);
    let way = if by_negentropy {
        reconcile::reconcile(run, span, report).await?
    } else {
        poll::poll(run, span, report).await?
    };
    Ok(conclude(lane, span, lengths, way, &mut report.progress))
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

/// Halves the windows of a lane whose job reached its time limit.
pub(super) fn after_time_over(run: &Run<'_>, progress: &mut Progress) {
    let lengths = lengths(run, run.upstream.negentropy);
    progress.window = Some((halved(lengths.next, None, 0), 0));
}

fn lengths(run: &Run<'_>, by_negentropy: bool) -> Lengths {
    let (lane, settings) = (&run.lease.lane, run.settings);
    let hours = |hours: u64| 3600 * i64::try_from(hours).unwrap_or(i64::MAX / 3600);
    let first = match (lane.kind, by_negentropy) {
        (LaneKind::Full, true) => hours(settings.chunk_max_hours),
        (_, true) => hours(settings.negentropy_chunk_hours),
        (_, false) => hours(settings.polling_chunk_hours),
    };
    let longest = hours(settings.chunk_max_hours);
    Lengths {
        next: lane.window_seconds.unwrap_or(first).min(longest.max(first)),
        longest,
        cap: None,
    }
}

/// Turns the end of a window into the lane's progress and the end of the job.
fn conclude(lane: &Lane, span: Span, lengths: Lengths, way: Way, progress: &mut Progress) -> Done {
    let again = |result| Done { ending: Ending::GoesOn(Duration::ZERO), result };
    match way {
        Way::Cut => again(json!({ "unfinished": [span.since, span.until] })),
        Way::Halve { most, items } => {
            let seconds = halved(span.seconds(), most, items);
            progress.window = Some((seconds, 0));
            again(json!({ "halved": [span.since, span.until], "seconds": seconds }))
        }
        Way::Done { method, is_cheap, revealed, mut result } => {
            let cheap = if is_cheap { lane.cheap_windows + 1 } else { 0 };
            let (span, count) = revealed.unwrap_or((span, 0));
            let fitting = fitting(lengths, span, count);
            progress.window = Some(fitting.unwrap_or_else(|| grown(lengths, cheap)));
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

/// Returns the length of the next window, and the number of cheap windows that count towards a
/// longer one.
pub(crate) fn grown(Lengths { next, longest, cap: _ }: Lengths, cheap: i32) -> (i64, i32) {
    if cheap >= CHEAP_RUN { ((2 * next).min(longest.max(next)), 0) } else { (next, cheap) }
}

/// Returns a shorter length for an upstream that cuts its sets, if the window held more than half of
/// such a set: the next window then holds a half. `None` if the length may stay or grow.
fn fitting(lengths: Lengths, span: Span, count: usize) -> Option<(i64, i32)> {
    let (cap, count) = (lengths.cap?, i64::try_from(count).unwrap_or(i64::MAX));
    let seconds = span.seconds().saturating_mul(cap / 2) / count.max(1);
    (2 * count > cap).then(|| (seconds.clamp(SHORTEST, lengths.next.max(SHORTEST)), 0))
}

/// Halves a length once, or as often as `most` records of the upstream require, down to the
/// shortest.
pub(crate) fn halved(seconds: i64, most: Option<u64>, items: usize) -> i64 {
    let mut shorter = seconds / 2;
    let mut records = u64::try_from(items).unwrap_or(u64::MAX) / 2;
    while most.is_some_and(|most| most > 0 && records > most) && shorter > SHORTEST {
        (shorter, records) = (shorter / 2, records / 2);
    }
    shorter.max(SHORTEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_go_back_to_the_target_and_not_beyond() {
        assert_eq!(next_span(1000, 0, 300), Span { since: 700, until: 1000 });
        assert_eq!(next_span(100, 0, 300), Span { since: 0, until: 100 });
    }

    #[test]
    fn three_cheap_windows_double_the_next_up_to_the_ceiling() {
        let grown = |next, cheap| grown(Lengths { next, longest: 1000, cap: None }, cheap);
        assert_eq!(grown(100, 2), (100, 2));
        assert_eq!(grown(100, 3), (200, 0));
        assert_eq!(grown(800, 3), (1000, 0));
    }

    #[test]
    fn windows_aim_at_half_of_a_set_that_the_relay_cuts() {
        let lengths = Lengths { next: 7200, longest: 100_000, cap: Some(1000) };
        let span = Span { since: 0, until: 7200 };
        assert_eq!(fitting(lengths, span, 1000), Some((3600, 0)));
        assert_eq!(fitting(lengths, span, 400), None);
        assert_eq!(fitting(Lengths { cap: None, ..lengths }, span, 9000), None);
    }

    #[test]
    fn a_refusal_halves_as_often_as_the_relay_says() {
        assert_eq!(halved(7200, None, 0), 3600);
        assert_eq!(halved(7200, Some(1000), 8000), 900);
        assert_eq!(halved(100, None, 0), 60);
    }
}
