//! A window by polling: page after page, from new to old.

use std::time::{Duration, Instant};

use serde_json::json;
use tender_jobs::mirror::{
    filter::Filter,
    lane::{self, Walked, gap::Finished},
    upstream::{self, Learned},
};

use super::{Effort, Span, Way};
use crate::mirror::{
    error::StepError,
    lane::Run,
    page::{Asked, Walk},
    report::Report,
};

/// The largest number of events that is requested at once, if the upstream's NIP-11 document names
/// none.
const MOST: u64 = 5000;
/// The longest time of an easy window: a longer one is answered within its wait, too.
const EASY: Duration = Duration::from_secs(20);

/// What a lane keeps of a walk that is not over.
#[derive(Debug, Clone, Copy)]
pub(in crate::mirror) enum Keep {
    /// The history is complete from the oldest second on.
    History,
    /// The next job continues the window.
    Window(Walked),
    /// The gaps in the walked part are closed.
    Gaps,
}

/// Polls a window of history.
pub(super) async fn poll(run: &Run<'_>, span: Span, report: &mut Report) -> Result<Way, StepError> {
    poll_as(run, span, report, Keep::History).await
}

pub(super) async fn poll_as(
    run: &Run<'_>,
    span: Span,
    report: &mut Report,
    keep: Keep,
) -> Result<Way, StepError> {
    let learned = upstream::learned(&run.context.db, run.upstream.id).await?;
    let filter = run.settings.download_filter();
    let window = (span.since, Some(span.until));
    let asked = asked(run, &learned, &filter, window, run.now());
    let (mut walk, started) = (Walk::new(asked), Instant::now());
    if !walk_through(run, &mut walk, (span.since, span.until), report, keep).await? {
        return Ok(Way::Unfinished);
    }
    Ok(Way::Done {
        method: "polling",
        effort: effort(walk.first_page, asked.limit, started.elapsed()),
        proven: None,
        result: json!({ "received": report.events.received() }),
    })
}

/// Walks through the pages of a window and stores their events, and how far it has come at every
/// `checkpoint_interval` events. Returns false if the window is left to the next job; then at least
/// one second is done.
pub(in crate::mirror) async fn walk_through(
    run: &Run<'_>,
    walk: &mut Walk<'_>,
    (since, until): (i64, i64),
    report: &mut Report,
    keep: Keep,
) -> Result<bool, StepError> {
    let connection = run.context.connections.get(run.upstream).await?;
    let (mut intake, mut done_from, mut since_checkpoint) = (run.intake(), until, 0);
    loop {
        let next = walk.next(&connection, &mut intake).await;
        // Events that came before an error are stored too.
        let received = intake.settle().await?;
        since_checkpoint += received.received();
        report.events.add(&received);
        learn(run, walk, report).await?;
        let Some(oldest) = next? else { break };
        let is_last = run.is_long() && oldest < until;
        if (is_last || since_checkpoint >= interval(run)) && oldest < done_from {
            note(walk, (oldest, done_from), report, keep);
            (done_from, since_checkpoint) = (oldest, 0);
            save(run, report).await?;
        }
        if is_last {
            if walk.is_repeated() {
                let late = Finished::retry(Vec::new(), vec![walk.late_gap()]);
                report.progress.finished.push(late);
            }
            return Ok(false);
        }
    }
    report.progress.violations += walk.violations + connection.take_strays();
    finish(walk, (since, done_from), report);
    Ok(true)
}

/// Notes that everything after `oldest` is stored.
fn note(walk: &mut Walk<'_>, (oldest, done_from): (i64, i64), report: &mut Report, keep: Keep) {
    match keep {
        Keep::History => report.progress.backfill_until = Some(oldest),
        Keep::Window(walked) => report.progress.walked = Some(Walked { at: oldest, ..walked }),
        Keep::Gaps => {}
    }
    finish(walk, (oldest + 1, done_from), report);
}

fn finish(walk: &mut Walk<'_>, (since, until): (i64, i64), report: &mut Report) {
    let gaps = std::mem::take(&mut walk.gaps);
    report.progress.saturated_seconds += i64::try_from(gaps.len()).unwrap_or(i64::MAX);
    report.progress.finished.push(Finished { gaps, ..Finished::window(since, until) });
}

/// Stores what the walk has shown about the upstream.
async fn learn(run: &Run<'_>, walk: &mut Walk<'_>, report: &mut Report) -> Result<(), StepError> {
    for fact in walk.facts.drain(..) {
        let url = &run.upstream.url;
        tracing::info!(url, ?fact, "learned how an upstream answers");
        upstream::learn(&run.context.db, run.upstream.id, fact).await?;
        report.is_ahead = true;
    }
    Ok(())
}

/// Returns the request for a window. A window without `until` is open-ended.
pub(in crate::mirror) fn asked<'a>(
    run: &Run<'_>,
    learned: &Learned,
    filter: &'a Filter,
    window: (i64, Option<i64>),
    now: i64,
) -> Asked<'a> {
    let asked = request(run.upstream, run.settings, learned, filter, window, now);
    Asked { lane: Some(run.lease.lane.id), ..asked }
}

/// Returns the request for a window of an upstream; otherwise like [`asked`].
pub(crate) fn request<'a>(
    upstream: &upstream::Upstream,
    settings: &upstream::settings::Settings,
    learned: &Learned,
    filter: &'a Filter,
    (since, until): (i64, Option<i64>),
    now: i64,
) -> Asked<'a> {
    let information = upstream.information.as_ref();
    let advertised = information.and_then(|of| of["max_limit"].as_u64()).filter(|most| *most > 0);
    let most = advertised.unwrap_or(MOST).min(MOST);
    Asked {
        filter,
        lane: None,
        prefix: None,
        since,
        until,
        limit: settings.poll_page_limit.min(advertised.unwrap_or(u64::MAX)),
        most,
        cap: learned.page_cap.and_then(|cap| usize::try_from(cap).ok()),
        is_exclusive: learned.is_exclusive(),
        silence: settings.polling_timeout(),
        limits: settings.limits(),
        now,
    }
}

fn interval(run: &Run<'_>) -> i64 {
    i64::try_from(run.settings.checkpoint_interval).unwrap_or(i64::MAX)
}

/// A window is easy if its first page is less than half full, and its few pages came within 20 s: the relay may need
/// longer for longer windows. It is never hard, because pages are walked one by one.
fn effort(first_page: Option<usize>, limit: u64, took: Duration) -> Effort {
    let is_sparse = u64::try_from(first_page.unwrap_or(0)).is_ok_and(|size| 2 * size < limit);
    if is_sparse && took <= EASY { Effort::Easy } else { Effort::Fair }
}

/// Writes the progress so far, and starts a new one.
async fn save(run: &Run<'_>, report: &mut Report) -> Result<(), StepError> {
    let so_far = std::mem::take(&mut report.progress);
    if !lane::checkpoint(&run.context.db, run.lease, &so_far).await? {
        return Err(StepError::LeaseLost);
    }
    report.is_ahead = true;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_easy_if_it_is_sparse_and_was_answered_soon() {
        for (first, seconds, expected) in [
            (None, 0, Effort::Easy),
            (Some(249), 20, Effort::Easy),
            (Some(250), 0, Effort::Fair),
            (Some(0), 21, Effort::Fair),
        ] {
            let effort = effort(first, 500, Duration::from_secs(seconds));
            assert_eq!(effort, expected, "{first:?} in {seconds} s");
        }
    }
}
