//! A window by negentropy (NIP-77): the ids of both sides are compared, and the missing events
//! fetched.
//!
//! - `ending`: how the window ends, as far as it is proven.

mod ending;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tender_jobs::{
    mirror::{
        event::{self, EventId, Item, Set},
        lane::gap,
        upstream::{self, Learned},
    },
    queue,
};
use tokio::sync::mpsc;

use super::{
    Effort, Proven, SHORTEST, Span, Way,
    poll::{asked, poll},
    retry::how,
};
use crate::{
    mirror::{
        connection::Connection,
        error::StepError,
        fetch::{self, Fetched},
        intake::Intake,
        lane::Run,
        negentropy::{self, Compared, NegError, Window},
        proof::{self, Proof, Revealed},
        report::Report,
    },
    runtime::pause,
};
use ending::{conclude, note_cap, unproven};

/// The ids that may wait to be fetched, while the comparison continues.
const WAITING_IDS: usize = 10_000;
/// How often a busy upstream is asked again for one window.
const MAX_BUSY: u64 = 5;
/// An upstream that refuses the shortest window, in which we know fewer events, refuses all.
const FEW: usize = 100;
/// Why such an upstream is polled.
const TOO_STRICT: &str = "the upstream refuses even a window of a minute as too large";
/// Why an id is a gap.
pub(super) const UNDELIVERED: &str = "the upstream listed the event and did not deliver it";
/// Why a window is a gap.
const TOO_DENSE: &str = "the upstream compares no window that is so dense, and takes events only";

/// Reconciles a window. Some errors are answered at once: by a second attempt, by a shorter window,
/// or by polling.
pub(super) async fn reconcile(
    run: &Run<'_>,
    span: Span,
    report: &mut Report,
) -> Result<Way, StepError> {
    let (mut is_repeated, mut busy) = (false, 0);
    loop {
        let is_shortest = span.seconds() <= SHORTEST;
        let error = match try_reconcile(run, span, report).await {
            // The window cannot be halved any more, so this window is polled.
            Ok(Way::Halve { items, .. }) if is_shortest && items < FEW => {
                return unsupported(run, span, report, TOO_STRICT).await;
            }
            Ok(Way::Halve { .. }) if is_shortest && run.upstream.direction.downloads() => {
                return poll(run, span, report).await;
            }
            Ok(Way::Halve { .. }) if is_shortest => return Ok(unproven(span, TOO_DENSE, report)),
            Ok(way) => return Ok(way),
            Err(error) => error,
        };
        match error {
            NegError::Step(StepError::Auth(_)) if !is_repeated => {
                run.context.connections.get(run.upstream).await?.authenticated().await?;
                is_repeated = true;
            }
            NegError::Ended(_) | NegError::Protocol(_) if !is_repeated => is_repeated = true,
            NegError::Unanswered(_) if may_be_slow(run, span) => {
                return Ok(Way::Halve { most: None, items: 0 });
            }
            NegError::Unanswered(_) => {
                return unsupported(run, span, report, &error.to_string()).await;
            }
            NegError::Protocol(why) | NegError::Unsupported(why) => {
                return unsupported(run, span, report, &why).await;
            }
            NegError::Slow if is_shortest => {
                return Err(StepError::Silent("the upstream reconciles too slowly".to_owned()));
            }
            NegError::Ended(why) if is_shortest => {
                return unsupported(run, span, report, &why).await;
            }
            NegError::TooBig(_) | NegError::Ended(_) | NegError::Slow => {
                return Ok(Way::Halve { most: None, items: 0 });
            }
            NegError::Busy(why) if busy == MAX_BUSY || run.is_long() => {
                return Err(StepError::RateLimited(why));
            }
            NegError::Busy(_) => {
                busy += 1;
                pause(Duration::from_secs(5 * busy)).await;
            }
            NegError::NoProgress => {
                return Err(StepError::Protocol("the reconciliation makes no progress".to_owned()));
            }
            NegError::Step(error) => return Err(error),
        }
    }
}

/// Whether an upstream that did not answer may need longer for this window: it supports NIP-77, and the window is longer
/// than a first one.
fn may_be_slow(run: &Run<'_>, span: Span) -> bool {
    let is_long = |seconds: u64| u64::try_from(span.seconds()).is_ok_and(|length| length > seconds);
    run.upstream.negentropy_verdict == "supported"
        && is_long(run.settings.negentropy_chunk_hours * 3600)
}

/// Stores that the upstream does not support NIP-77, and polls the same window. The work on an
/// upstream that only takes events ends.
async fn unsupported(
    run: &Run<'_>,
    span: Span,
    report: &mut Report,
    why: &str,
) -> Result<Way, StepError> {
    let url = &run.upstream.url;
    tracing::warn!(url, why, "upstream does not support negentropy; asked again after a day");
    upstream::judge_negentropy(&run.context.db, run.upstream.id, Some(why)).await?;
    if run.upstream.direction.downloads() {
        return poll(run, span, report).await;
    }
    Err(StepError::Unwanted)
}

async fn try_reconcile(run: &Run<'_>, span: Span, report: &mut Report) -> Result<Way, NegError> {
    let (db, filter) = (&run.context.db, run.settings.download_filter());
    let started = Instant::now();
    let begun = queue::now(db).await.map_err(StepError::from)?;
    let limits = run.settings.limits();
    let set = event::set(db, run.upstream.id, &filter, limits, span.since, span.until).await;
    let items = match set.map_err(StepError::from)? {
        Set::Items(items) => Arc::new(items),
        Set::TooLarge => return Ok(Way::Halve { most: None, items: 0 }),
    };
    let now = begun.timestamp();
    let connection = run.context.connections.get(run.upstream).await?;
    let window = Window {
        filter: &filter,
        since: span.since,
        until: span.until,
        frame_size: run.settings.negentropy_frame_size,
        first_answer: run.settings.negentropy_timeout(),
        silence: negentropy::SILENCE,
    };
    let mut intake = run.intake();
    let both = compare_and_fetch(run, &connection, &window, items.clone(), &mut intake).await;
    let (compared, fetched) = match both {
        Ok(both) => both,
        Err(error) => {
            report.events.add(&intake.settle().await?);
            return match error {
                NegError::TooBig(most) => Ok(Way::Halve { most, items: items.len() }),
                error => Err(error),
            };
        }
    };
    let revealed = Revealed { items: &items, compared: &compared, fetched: fetched.edges };
    let proof = prove(run, &connection, &window, now, (&revealed, fetched.is_cut));
    // The upstream is asked while the last events are stored: the proof reads nothing of the store.
    let (stored, proof) = tokio::join!(intake.settle(), proof);
    report.events.add(&stored?);
    report.progress.violations += fetched.violations + connection.take_strays();
    let Some((learned, proof)) = proof? else { return Ok(Way::Cut) };
    note_cap(run, &learned, revealed.count(), proof, report).await?;
    let all = (items.as_slice(), &compared, &fetched);
    Ok(conclude(run, (begun, started, span), proof, all, report).await?)
}

/// Stores that the upstream supports NIP-77, and proves what it revealed. Also returns what was known
/// about the upstream; `None` if the fetch was cut.
async fn prove(
    run: &Run<'_>,
    connection: &Connection,
    window: &Window<'_>,
    now: i64,
    (revealed, is_cut): (&Revealed<'_>, bool),
) -> Result<Option<(Learned, Proof)>, StepError> {
    let db = &run.context.db;
    if run.upstream.negentropy_verdict != "supported" {
        upstream::judge_negentropy(db, run.upstream.id, None).await?;
    }
    if is_cut {
        return Ok(None);
    }
    let learned = upstream::learned(db, run.upstream.id).await?;
    let (since, until) = (window.since, window.until);
    let asked = asked(run, &learned, window.filter, (since, Some(until)), now);
    let proof = proof::prove(connection, asked, until, revealed).await?;
    Ok(Some((learned, proof)))
}

/// Compares both sides, and fetches the missing events at the same time. Nothing is fetched from an
/// upstream that only takes events.
async fn compare_and_fetch(
    run: &Run<'_>,
    connection: &Connection,
    window: &Window<'_>,
    items: Arc<Vec<Item>>,
    intake: &mut Intake,
) -> Result<(Compared, Fetched), NegError> {
    let (needed, to_fetch) = mpsc::channel(WAITING_IDS);
    let compared = negentropy::compare(connection, window, items, needed);
    if !run.upstream.direction.downloads() {
        let (compared, ()) = tokio::join!(compared, drain(to_fetch));
        return Ok((compared?, Fetched::default()));
    }
    let waiting = gap::waiting_ids(&run.context.db, run.lease.lane.id).await;
    let waiting = waiting.map_err(StepError::from)?;
    let fetched = fetch::fetch(connection, to_fetch, how(run, window.filter, &waiting), intake);
    tokio::try_join!(compared, async { fetched.await.map_err(NegError::from) })
}

async fn drain(mut ids: mpsc::Receiver<EventId>) {
    while ids.recv().await.is_some() {}
}
