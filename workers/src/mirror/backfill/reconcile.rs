//! A window by negentropy (NIP-77): the ids of both sides are compared, and the missing events
//! fetched.

use std::time::Duration;

use serde_json::json;
use tender_jobs::{
    mirror::{
        event::{self, EventId, Item, Set, outgoing},
        upstream,
    },
    queue,
};
use tokio::sync::mpsc;

use super::{SHORTEST, Span, Way, poll::poll};
use crate::{
    mirror::{
        connection::Connection,
        error::StepError,
        fetch::{self, Fetched, Wanted},
        intake::Intake,
        lane::{Report, Run},
        negentropy::{self, Compared, NegError, Window},
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
            Ok(Way::Halve { .. }) if is_shortest => return poll(run, span, report).await,
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
            NegError::Ended(_) if is_shortest => return poll(run, span, report).await,
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

/// Stores that the upstream does not support NIP-77, and polls the same window.
async fn unsupported(
    run: &Run<'_>,
    span: Span,
    report: &mut Report,
    why: &str,
) -> Result<Way, StepError> {
    let url = &run.upstream.url;
    tracing::warn!(url, why, "upstream does not support negentropy; polling it for a day");
    upstream::judge_negentropy(&run.context.db, run.upstream.id, Some(why)).await?;
    poll(run, span, report).await
}

async fn try_reconcile(run: &Run<'_>, span: Span, report: &mut Report) -> Result<Way, NegError> {
    let (db, filter) = (&run.context.db, run.settings.download_filter());
    let begun = queue::now(db).await.map_err(StepError::from)?;
    let limits = run.settings.limits();
    let set = event::set(db, run.upstream.id, &filter, limits, span.since, span.until).await;
    let items = match set.map_err(StepError::from)? {
        Set::Items(items) => items,
        Set::TooLarge => return Ok(Way::Halve { most: None, items: 0 }),
    };
    let ours = items.len();
    let connection = run.context.connections.get(run.upstream).await?;
    let window = Window {
        filter: &filter,
        since: span.since,
        until: span.until,
        frame_size: run.settings.negentropy_frame_size,
        first_answer: run.settings.negentropy_timeout(),
    };
    let mut intake = run.intake();
    let both = compare_and_fetch(run, &connection, &window, items, &mut intake).await;
    report.events.add(&intake.settle().await?);
    let (compared, fetched) = match both {
        Err(NegError::TooBig(most)) => return Ok(Way::Halve { most, items: ours }),
        both => both?,
    };
    if run.upstream.negentropy_verdict != "supported" {
        upstream::judge_negentropy(db, run.upstream.id, None).await.map_err(StepError::from)?;
    }
    report.progress.unavailable += fetched.unavailable;
    report.progress.violations += fetched.violations + connection.take_strays();
    if fetched.is_cut {
        return Ok(Way::Cut);
    }
    if run.upstream.direction.uploads() {
        let have: Vec<EventId> = compared.have.iter().copied().collect();
        let lost = outgoing::lost(db, run.upstream.id, Some(begun), &have).await;
        lost.map_err(StepError::from)?;
    }
    Ok(done(&compared, ours, fetched.unavailable))
}

/// Compares both sides, and fetches the missing events at the same time. Nothing is fetched from an
/// upstream that only takes events.
async fn compare_and_fetch(
    run: &Run<'_>,
    connection: &Connection,
    window: &Window<'_>,
    items: Vec<Item>,
    intake: &mut Intake,
) -> Result<(Compared, Fetched), NegError> {
    let (needed, to_fetch) = mpsc::channel(WAITING_IDS);
    let compared = negentropy::compare(connection, window, items, needed);
    if !run.upstream.direction.downloads() {
        let (compared, ()) = tokio::join!(compared, drain(to_fetch));
        return Ok((compared?, Fetched::default()));
    }
    let size = usize::try_from(run.settings.batch_size).unwrap_or(usize::MAX);
    let wanted = Wanted { filter: window.filter, limits: run.settings.limits() };
    let fetched = fetch::fetch(connection, to_fetch, size, wanted, intake);
    tokio::try_join!(compared, async { fetched.await.map_err(NegError::from) })
}

async fn drain(mut ids: mpsc::Receiver<EventId>) {
    while ids.recv().await.is_some() {}
}

fn done(compared: &Compared, ours: usize, unavailable: i64) -> Way {
    let differences = compared.needed + compared.have.len();
    Way::Done {
        method: "negentropy",
        is_cheap: compared.rounds <= CHEAP_ROUNDS && differences <= CHEAP_DIFFERENCES,
        result: json!({
            "ours": ours, "needed": compared.needed, "held": compared.have.len(),
            "rounds": compared.rounds, "unavailable": unavailable,
        }),
        more: Vec::new(),
    }
}
