//! A window by negentropy (NIP-77): the ids of both sides are compared, and the missing events
//! fetched.

use std::{sync::Arc, time::Duration};

use chrono::{DateTime, Utc};
use serde_json::json;
use tender_jobs::{
    mirror::{
        event::{self, EventId, Item, Set, outgoing},
        lane::gap::{self, Finished, Gap},
        upstream::{self, Fact, Learned},
    },
    queue,
};
use tokio::sync::mpsc;

use super::{
    SHORTEST, Span, Way,
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

/// A window with more differences than this is not cheap.
const CHEAP_DIFFERENCES: usize = 1000;
/// A window with more round trips than this is not cheap.
const CHEAP_ROUNDS: u32 = 2;
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
/// Why a window is a gap.
const UNPROVEN: &str = "the upstream compares only a part of its events";

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

/// Ends a window of an upstream that only takes events as a gap.
fn unproven(span: Span, why: &str, report: &mut Report) -> Way {
    let gaps = vec![Gap::span(span.since, span.until, why)];
    let finished = Finished { gaps, ..Finished::window(span.since, span.until) };
    report.progress.finished.push(finished);
    let result = json!({ "unproven": why });
    Way::Done { method: "negentropy", is_cheap: false, revealed: None, result }
}

async fn try_reconcile(run: &Run<'_>, span: Span, report: &mut Report) -> Result<Way, NegError> {
    let (db, filter) = (&run.context.db, run.settings.download_filter());
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
    };
    let mut intake = run.intake();
    let both = compare_and_fetch(run, &connection, &window, items.clone(), &mut intake).await;
    report.events.add(&intake.settle().await?);
    let (compared, fetched) = match both {
        Err(NegError::TooBig(most)) => return Ok(Way::Halve { most, items: items.len() }),
        both => both?,
    };
    if run.upstream.negentropy_verdict != "supported" {
        upstream::judge_negentropy(db, run.upstream.id, None).await.map_err(StepError::from)?;
    }
    report.progress.violations += fetched.violations + connection.take_strays();
    if fetched.is_cut {
        return Ok(Way::Cut);
    }
    let learned = upstream::learned(db, run.upstream.id).await.map_err(StepError::from)?;
    let asked = asked(run, &learned, &filter, (span.since, Some(span.until)), now);
    let revealed = Revealed { items: &items, compared: &compared, fetched: fetched.edges };
    let proof = proof::prove(&connection, asked, span.until, &revealed).await?;
    note_cap(run, &learned, revealed.count(), proof, report).await?;
    let all = (items.as_slice(), &compared, &fetched);
    Ok(conclude(run, (begun, span), proof, all, report).await?)
}

/// Learns at how many events the upstream cuts its sets.
async fn note_cap(
    run: &Run<'_>,
    learned: &Learned,
    count: usize,
    proof: Proof,
    report: &mut Report,
) -> Result<(), StepError> {
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let fact = match (proof, learned.negentropy_cap) {
        (Proof::Whole, Some(cap)) if count > cap => Fact::NegentropyCap(None),
        (Proof::Cut | Proof::CutBelow(_), cap)
            if count > 0 && cap.is_none_or(|cap| count > cap) =>
        {
            Fact::NegentropyCap(Some(count))
        }
        _ => return Ok(()),
    };
    tracing::info!(url = run.upstream.url, ?fact, "learned how an upstream answers");
    upstream::learn(&run.context.db, run.upstream.id, fact).await?;
    report.is_ahead = true;
    Ok(())
}

/// Ends a window as far as its reconciliation is proven. What is not proven is polled, or is a
/// shorter window's work.
async fn conclude(
    run: &Run<'_>,
    (begun, span): (DateTime<Utc>, Span),
    proof: Proof,
    (items, compared, fetched): (&[Item], &Compared, &Fetched),
    report: &mut Report,
) -> Result<Way, StepError> {
    let below = match proof {
        Proof::Whole => span.since,
        Proof::CutBelow(oldest) | Proof::UnclearBelow(oldest) if oldest < span.until => oldest,
        _ if run.upstream.direction.downloads() => {
            return poll(run, span, report).await;
        }
        _ if span.seconds() > SHORTEST => {
            return Ok(Way::Halve { most: None, items: 0 });
        }
        _ => return Ok(unproven(span, UNPROVEN, report)),
    };
    let proven = Span { since: below, until: span.until };
    let is_whole = proof == Proof::Whole;
    let from = if is_whole { below } else { below + 1 };
    report.progress.unavailable += i64::try_from(fetched.undelivered.len()).unwrap_or(i64::MAX);
    report.progress.finished.push(finished(span, from, fetched));
    lose(run, begun, items, compared, from).await?;
    Ok(done(proven, items, compared, fetched))
}

/// Returns the account of a window that is proven from the second `from` on. The undelivered ids
/// may be of any of its seconds.
fn finished(span: Span, from: i64, fetched: &Fetched) -> Finished {
    let gap = |id: &EventId| Gap::id(*id, span.since, span.until, UNDELIVERED);
    Finished {
        gaps: fetched.undelivered.iter().map(gap).collect(),
        skipped: fetched.skipped.clone(),
        ..Finished::window(from, span.until)
    }
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

fn done(proven: Span, items: &[Item], compared: &Compared, fetched: &Fetched) -> Way {
    let differences = compared.need.len() + compared.have.len();
    Way::Done {
        method: "negentropy",
        is_cheap: compared.rounds <= CHEAP_ROUNDS && differences <= CHEAP_DIFFERENCES,
        revealed: Some((proven, Revealed::count_of(items, compared))),
        result: json!({
            "ours": items.len(), "needed": compared.need.len(), "held": compared.have.len(),
            "rounds": compared.rounds, "unavailable": fetched.undelivered.len(),
        }),
    }
}

/// Stores that the upstream lacks events, from the second `from` on: below, it did not show its
/// whole set.
async fn lose(
    run: &Run<'_>,
    begun: DateTime<Utc>,
    items: &[Item],
    compared: &Compared,
    from: i64,
) -> Result<(), StepError> {
    if !run.upstream.direction.uploads() || compared.have.is_empty() {
        return Ok(());
    }
    let is_proven = |at: u64| i64::try_from(at).is_ok_and(|at| at >= from);
    let lacking = items.iter().filter(|(at, id)| is_proven(*at) && compared.have.contains(id));
    let ids: Vec<EventId> = lacking.map(|(_, id)| *id).collect();
    outgoing::lost(&run.context.db, run.upstream.id, Some(begun), &ids).await?;
    Ok(())
}
