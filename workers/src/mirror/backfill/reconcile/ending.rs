//! How a window by negentropy ends: as far as its reconciliation is proven.

use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use serde_json::json;
use tender_jobs::mirror::{
    event::{EventId, Item, outgoing},
    lane::gap::{Finished, Gap},
    upstream::{self, Fact, Learned},
};

use super::{Effort, Proven, SHORTEST, Span, UNDELIVERED, Way, poll};
use crate::mirror::{
    error::StepError,
    fetch::Fetched,
    lane::Run,
    negentropy::Compared,
    proof::{Proof, Revealed},
    report::Report,
};

/// Why a window is a gap.
const UNPROVEN: &str = "the upstream compares only a part of its events";

/// Learns at how many events the upstream cuts its sets.
pub(super) async fn note_cap(
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
/// shorter window's work. `begun` is by the database's clock, `started` by ours.
pub(super) async fn conclude(
    run: &Run<'_>,
    (begun, started, span): (DateTime<Utc>, Instant, Span),
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
    Ok(done(proven, started.elapsed(), items, compared, fetched))
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

/// Ends a window of an upstream that only takes events as a gap.
pub(super) fn unproven(span: Span, why: &str, report: &mut Report) -> Way {
    let gaps = vec![Gap::span(span.since, span.until, why)];
    let finished = Finished { gaps, ..Finished::window(span.since, span.until) };
    report.progress.finished.push(finished);
    let result = json!({ "unproven": why });
    Way::Done { method: "negentropy", effort: Effort::Fair, proven: None, result }
}

fn done(span: Span, took: Duration, items: &[Item], compared: &Compared, fetched: &Fetched) -> Way {
    let differences = compared.need.len() + compared.have.len();
    let (events, held) = (Revealed::count_of(items, compared), items.len() + compared.need.len());
    Way::Done {
        method: "negentropy",
        effort: Effort::of(took, compared.rounds, differences),
        proven: Some(Proven { span, events, held, took }),
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
