//! History, window by window, newest first: by negentropy where the relay speaks it, else by polling.
//! The lane's `backfill_until` falls with each window that is done, and with each page of one; an
//! upstream that turns out not to speak NIP-77 is polled for the same window under the same lease.

use std::time::Duration;

use serde_json::{Value, json};
use tender_jobs::{
    event::{self, EventId, Set},
    lane::{self, Ending, Progress},
    queue::Work,
    upstream,
};
use tokio::sync::mpsc;

use super::{
    error::StepError,
    fetch,
    intake::{Intake, Tally},
    lane::{Done, Run},
    negentropy::{self, Compared, NegError, Window},
    page::{Asked, Walk},
};

/// The shortest window that a refusal makes.
pub(super) const SHORTEST: i64 = 60;
/// Cheap windows in a row after which they get longer.
const CHEAP_RUN: i32 = 3;
/// Differences up to which a window is cheap.
const CHEAP_DIFFERENCES: usize = 1000;
/// Round trips up to which it is.
const CHEAP_ROUNDS: u32 = 2;
/// Ids of one job of uploads.
const UPLOADS_OF_JOB: usize = 1000;

/// A window of history; both ends inclusive, so that neighbours share a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Span {
    since: i64,
    until: i64,
}

impl Span {
    fn seconds(self) -> i64 {
        self.until - self.since
    }
}

/// The next window: from where history is done, `length` back, not beyond the target.
fn next_span(until: i64, target: i64, length: i64) -> Span {
    Span { since: (until - length).max(target), until }
}

/// How a window was done.
enum Way {
    Done {
        method: &'static str,
        is_cheap: bool,
        result: Value,
        more: Vec<Work>,
    },
    /// More than one job can fetch: the same window again, which lacks less now.
    Cut,
    /// Too much at once: the same again, shorter.
    Halve {
        most: Option<u64>,
        items: usize,
    },
}

pub(super) async fn run(run: &Run<'_>, progress: &mut Progress) -> Result<Done, StepError> {
    let lane = &run.lease.lane;
    let (Some(until), Some(target)) = (lane.backfill_until, lane.backfill_target) else {
        return Err(StepError::Unwanted); // nobody began it
    };
    if until <= target {
        return Ok(rests(json!({ "complete": true })));
    }
    let by_negentropy = upstream::tries_negentropy(&run.context.db, run.upstream.id).await?;
    let hours = |hours: u64| 3600 * i64::try_from(hours).unwrap_or(i64::MAX / 3600);
    let first = match (lane.kind, by_negentropy) {
        (lane::LaneKind::Full, true) => hours(run.settings.chunk_max_hours),
        (_, true) => hours(run.settings.negentropy_chunk_hours),
        (_, false) => hours(run.settings.polling_chunk_hours),
    };
    let longest = hours(run.settings.chunk_max_hours);
    let length = lane.window_seconds.unwrap_or(first).min(longest.max(first));
    let span = next_span(until, target, length);
    let way = if by_negentropy {
        reconcile(run, span, progress).await?
    } else {
        poll(run, span, progress).await?
    };
    Ok(conclude(run, span, length, longest, target, way, progress))
}

fn rests(result: Value) -> Done {
    Done { ending: Ending::Rests { is_complete: true }, more: Vec::new(), result }
}

/// Moves the lane on.
fn conclude(
    run: &Run<'_>,
    span: Span,
    length: i64,
    longest: i64,
    target: i64,
    way: Way,
    progress: &mut Progress,
) -> Done {
    match way {
        Way::Halve { most, items } => {
            let shorter = halved(span.seconds(), most, items);
            progress.window = Some((shorter, 0));
            let result = json!({ "halved": [span.since, span.until], "seconds": shorter });
            Done { ending: Ending::GoesOn(Duration::ZERO), more: Vec::new(), result }
        }
        Way::Cut => {
            let result = json!({ "unfinished": [span.since, span.until] });
            Done { ending: Ending::GoesOn(Duration::ZERO), more: Vec::new(), result }
        }
        Way::Done { method, is_cheap, mut result, more } => {
            let cheap = if is_cheap { run.lease.lane.cheap_windows + 1 } else { 0 };
            progress.window = Some(grown(length, cheap, longest));
            progress.backfill_until = Some(span.since);
            progress.method = Some(method);
            result["window"] = json!([span.since, span.until]);
            result["method"] = json!(method);
            let is_complete = span.since <= target;
            let ending = if is_complete {
                Ending::Rests { is_complete }
            } else {
                Ending::GoesOn(Duration::ZERO)
            };
            Done { ending, more, result }
        }
    }
}

/// The next window's length, and the cheap ones in a row that count for it.
fn grown(length: i64, cheap: i32, longest: i64) -> (i64, i32) {
    if cheap >= CHEAP_RUN { ((2 * length).min(longest.max(length)), 0) } else { (length, cheap) }
}

/// Half, or as many halves as the relay's own number asks for, not below the shortest.
fn halved(seconds: i64, most: Option<u64>, items: usize) -> i64 {
    let mut shorter = seconds / 2;
    let mut records = u64::try_from(items).unwrap_or(u64::MAX) / 2;
    while most.is_some_and(|most| most > 0 && records > most) && shorter > SHORTEST {
        (shorter, records) = (shorter / 2, records / 2);
    }
    shorter.max(SHORTEST)
}

/// The page limit, lowered to what the relay advertises.
pub(super) fn page_limit(run: &Run<'_>) -> u64 {
    let information = run.upstream.information.as_ref();
    let advertised = information.and_then(|of| of["max_limit"].as_u64()).filter(|most| *most > 0);
    run.settings.poll_page_limit.min(advertised.unwrap_or(u64::MAX))
}

/// Adds what became of events.
pub(super) fn count(progress: &mut Progress, tally: &Tally) {
    progress.received += tally.received;
    progress.stored += tally.stored;
    progress.duplicate += tally.duplicate;
    progress.rejected += tally.rejected();
}

async fn poll(run: &Run<'_>, span: Span, progress: &mut Progress) -> Result<Way, StepError> {
    let now = run.now().await?;
    let filter = run.settings.download_filter();
    let connection = run.context.connections.get(run.upstream).await?;
    let asked = Asked {
        filter: &filter,
        since: span.since,
        until: Some(span.until),
        limit: page_limit(run),
        silence: run.settings.polling_timeout(),
        limits: run.settings.limits(),
    };
    let mut intake = Intake::new(&run.context.db, run.upstream.id);
    let interval = i64::try_from(run.settings.checkpoint_interval).unwrap_or(i64::MAX);
    let mut received = 0;
    let mut walk = Walk::new(asked, now);
    while let Some(oldest) = walk.next(&connection, &mut intake).await? {
        // Everything from here on has a verdict: pages run from new to old.
        let tally = intake.settle().await?;
        received += tally.received;
        count(progress, &tally);
        if progress.received >= interval || run.is_long() {
            progress.backfill_until = Some(oldest);
        }
        if run.is_long() {
            return Err(StepError::TimeOver);
        }
        if progress.received >= interval {
            save(run, progress).await?;
        }
    }
    progress.violations += walk.violations + connection.take_strays();
    progress.saturated_seconds += walk.saturated_seconds;
    let is_cheap =
        u64::try_from(walk.first_page.unwrap_or(0)).is_ok_and(|size| 2 * size < asked.limit);
    let result = json!({ "received": received });
    Ok(Way::Done { method: "polling", is_cheap, result, more: Vec::new() })
}

/// Writes what was counted so far, and counts on from nothing.
async fn save(run: &Run<'_>, progress: &mut Progress) -> Result<(), StepError> {
    let so_far = std::mem::take(progress);
    if lane::checkpoint(&run.context.db, run.lease, &so_far).await? {
        Ok(())
    } else {
        Err(StepError::LeaseLost)
    }
}

async fn reconcile(run: &Run<'_>, span: Span, progress: &mut Progress) -> Result<Way, StepError> {
    let (mut is_repeated, mut busy) = (false, 0);
    loop {
        let is_shortest = span.seconds() <= SHORTEST;
        let error = match try_reconcile(run, span, progress).await {
            // It cannot be halved any more: this window only is polled.
            Ok(Way::Halve { .. }) if is_shortest => return poll(run, span, progress).await,
            Ok(way) => return Ok(way),
            Err(error) => error,
        };
        match error {
            NegError::Step(StepError::Auth(_)) if !is_repeated => {
                run.context.connections.get(run.upstream).await?.authenticated().await?;
                is_repeated = true;
            }
            NegError::Ended(_) | NegError::Protocol(_) if !is_repeated => is_repeated = true,
            NegError::Protocol(why) | NegError::Unsupported(why) => {
                return unsupported(run, span, progress, &why).await;
            }
            NegError::Slow if is_shortest => {
                return Err(StepError::Silent("the relay reconciles too slowly".to_owned()));
            }
            NegError::Ended(_) if is_shortest => return poll(run, span, progress).await,
            NegError::TooBig(_) | NegError::Ended(_) | NegError::Slow => {
                return Ok(Way::Halve { most: None, items: 0 });
            }
            NegError::Busy(why) => {
                busy += 1;
                if busy > 5 || run.is_long() {
                    return Err(StepError::RateLimited(why));
                }
                let pause = Duration::from_secs(5 * busy);
                let _time = tokio::time::timeout(pause, std::future::pending::<()>()).await;
            }
            NegError::NoProgress => {
                return Err(StepError::Protocol("the reconciliation makes no progress".to_owned()));
            }
            NegError::Step(error) => return Err(error),
        }
    }
}

/// Remembers that the relay does not speak NIP-77, and polls the same window.
async fn unsupported(
    run: &Run<'_>,
    span: Span,
    progress: &mut Progress,
    why: &str,
) -> Result<Way, StepError> {
    tracing::warn!(url = run.upstream.url, why, "no negentropy with this relay for a day; polling");
    upstream::judge_negentropy(&run.context.db, run.upstream.id, Some(why)).await?;
    poll(run, span, progress).await
}

async fn try_reconcile(
    run: &Run<'_>,
    span: Span,
    progress: &mut Progress,
) -> Result<Way, NegError> {
    let filter = run.settings.download_filter();
    let db = &run.context.db;
    let set = event::set(db, run.upstream.id, &filter, span.since, span.until).await;
    let items = match set.map_err(StepError::from)? {
        Set::Items(items) => items,
        Set::TooLarge => return Ok(Way::Halve { most: None, items: 0 }),
    };
    let connection = run.context.connections.get(run.upstream).await?;
    let (count_of_ours, frame_size) = (items.len(), run.settings.negentropy_frame_size);
    let window = Window { filter: &filter, since: span.since, until: span.until, frame_size };
    let (needed, to_fetch) = mpsc::channel(10_000);
    let mut intake = Intake::new(db, run.upstream.id);
    let size = usize::try_from(run.settings.batch_size).unwrap_or(usize::MAX);
    let limits = run.settings.limits();
    let compared = negentropy::compare(&connection, &window, items, needed);
    // An upstream that only takes events is compared with, and not downloaded from.
    let both = if run.upstream.direction.downloads() {
        let fetched = async {
            fetch::fetch(&connection, to_fetch, size, limits, &mut intake)
                .await
                .map_err(NegError::from)
        };
        tokio::try_join!(compared, fetched)
    } else {
        let ignored = drain(to_fetch);
        tokio::join!(compared, ignored).0.map(|compared| (compared, fetch::Fetched::default()))
    };
    count(progress, &intake.settle().await.map_err(StepError::from)?);
    let (compared, fetched) = match both {
        Err(NegError::TooBig(most)) => return Ok(Way::Halve { most, items: count_of_ours }),
        both => both?,
    };
    if run.upstream.negentropy_verdict != "supported" {
        upstream::judge_negentropy(db, run.upstream.id, None).await.map_err(StepError::from)?;
    }
    progress.unavailable += fetched.unavailable;
    progress.violations += fetched.violations + connection.take_strays();
    if fetched.is_cut {
        return Ok(Way::Cut);
    }
    Ok(reconciled(run, &compared, count_of_ours, fetched.unavailable))
}

async fn drain(mut ids: mpsc::Receiver<EventId>) {
    while ids.recv().await.is_some() {}
}

fn reconciled(run: &Run<'_>, compared: &Compared, ours: usize, unavailable: i64) -> Way {
    let uploads =
        if run.upstream.direction.uploads() { uploads_of(run, compared) } else { Vec::new() };
    let differences = compared.needed + compared.have.len();
    Way::Done {
        method: "negentropy",
        is_cheap: compared.rounds <= CHEAP_ROUNDS && differences <= CHEAP_DIFFERENCES,
        result: json!({
            "ours": ours, "needed": compared.needed, "held": compared.have.len(),
            "rounds": compared.rounds, "unavailable": unavailable,
        }),
        more: uploads,
    }
}

/// What the relay lacks goes up by jobs of its own, which see whether it is wanted there.
fn uploads_of(run: &Run<'_>, compared: &Compared) -> Vec<Work> {
    let mut ids: Vec<String> = compared.have.iter().map(ToString::to_string).collect();
    ids.sort_unstable();
    let work =
        |ids: &[String]| Work::UploadEvents { upstream: run.upstream.id, events: ids.to_vec() };
    ids.chunks(UPLOADS_OF_JOB).map(work).collect()
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
        assert_eq!(grown(100, 2, 1000), (100, 2));
        assert_eq!(grown(100, 3, 1000), (200, 0));
        assert_eq!(grown(800, 3, 1000), (1000, 0));
    }

    #[test]
    fn a_refusal_halves_as_often_as_the_relay_says() {
        assert_eq!(halved(7200, None, 0), 3600);
        assert_eq!(halved(7200, Some(1000), 8000), 900);
        assert_eq!(halved(100, None, 0), 60);
    }
}
