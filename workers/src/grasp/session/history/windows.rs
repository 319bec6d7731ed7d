//! The comparison of a filter by negentropy (NIP-77), window by window, newest first. A window that is too large for
//! the relay is split as the mirror splits its windows.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use tender_jobs::{
    grasp::{
        coverage,
        family::{Purpose, Source},
    },
    mirror::{
        event::{EventId, Item},
        filter::Filter,
        lane::gap::Gap,
        upstream,
    },
};
use tokio::sync::mpsc;

use super::{Account, Clock, Request, Session, walk};
use crate::mirror::{
    backfill::{self, DoneWindow, Effort, Lengths, SHORTEST, Span},
    error::StepError,
    fetch::{self, How, Wanted},
    intake::Intake,
    negentropy::{self, NegError, Window},
    page::FUTURE,
    proof::{self, Proof, Revealed},
};

/// The rounds in which ids are requested that the relay lists and does not deliver.
const ROUNDS: usize = 3;
/// See the comparison of a window that is refused as too large.
const FEW: usize = 100;
/// The ids that the reason of a gap names.
const NAMED: usize = 10;
/// The comparisons of one filter: a fetch that ran out of time goes on with another one.
const COMPARISONS: usize = 500;
/// The ids that may wait to be requested.
const WAITING_IDS: usize = 1000;

/// How far a filter was compared.
pub(super) enum Compared {
    /// The relay has nothing of the filter that we have not decided on.
    Whole,
    /// The rest is paged: from the beginning, or from this second down.
    Below(Option<i64>),
}

/// How the comparison of a window ended.
enum Verdict {
    Whole,
    /// Events came, and there are more.
    Again,
    /// The window is too large. The relay accepts so many records, if it says so.
    TooBig(Option<u64>),
    /// The relay began the comparison, and did not go on with it or took too long.
    Slow,
    /// The history is paged, from this second down if later ones of the window are proven.
    Paged(Option<i64>),
}

/// What we hold of a filter.
type Items = Arc<Vec<Item>>;

/// Compares a filter from `until` down, as far as the relay lets it be compared.
pub(super) async fn compare(
    session: &Session,
    request: &Request<'_>,
    until: Option<i64>,
    clock: &Clock,
    account: &mut Account,
) -> Result<Compared, StepError> {
    let top = until.unwrap_or(clock.at + FUTURE);
    let (mut below, mut lengths, mut is_slow) = (until, longest(top), false);
    let Some(mut items) = held(session, request).await? else { return Ok(Compared::Below(until)) };
    for _ in 0..COMPARISONS {
        let span = backfill::next_span(below.unwrap_or(top), 0, lengths.next);
        let ours = within(&items, span);
        let verdict = compare_window(session, request, span, ours.clone(), account).await?;
        let was_slow = std::mem::replace(&mut is_slow, matches!(verdict, Verdict::Slow));
        match verdict {
            Verdict::Slow if was_slow || span.seconds() <= SHORTEST => {
                session.compares_nothing.store(true, Ordering::Relaxed);
                return Ok(Compared::Below(below));
            }
            Verdict::Slow => {
                lengths = lengths.after_refusal(span.seconds(), None, ours.len());
            }
            Verdict::Again => {
                let Some(more) = held(session, request).await? else { break };
                items = more;
            }
            Verdict::TooBig(most) if span.seconds() > SHORTEST => {
                lengths = lengths.after_refusal(span.seconds(), most, ours.len());
            }
            // A relay that refuses the shortest window, in which we know few events, refuses all.
            Verdict::TooBig(_) if ours.len() < FEW => {
                session.compares_nothing.store(true, Ordering::Relaxed);
                return Ok(Compared::Below(below));
            }
            Verdict::TooBig(_) => {
                walk(session, request, (span.since, Some(span.until)), clock, account).await?;
                below = Some(span.since);
            }
            Verdict::Paged(second) => return Ok(Compared::Below(second.or(below))),
            Verdict::Whole if span.since <= 0 => return Ok(Compared::Whole),
            Verdict::Whole => {
                below = Some(span.since);
                lengths = lengths.after(easy(span));
            }
        }
        if clock.is_over() {
            // Pages prove a part in any case.
            let is_proven = below.is_some() && below != until;
            if is_proven {
                return Err(clock.end(below, account));
            }
            break;
        }
    }
    Ok(Compared::Below(below))
}

/// The first window is the whole history.
fn longest(top: i64) -> Lengths {
    Lengths { next: top, longest: top, easy: 0, refused: None }
}

/// A comparison that was whole: the time of a job bounds the others.
fn easy(span: Span) -> DoneWindow {
    DoneWindow {
        effort: Effort::Easy,
        took: std::time::Duration::ZERO,
        seconds: span.seconds(),
        events: 0,
        held: 0,
        cap: None,
    }
}

async fn held(session: &Session, request: &Request<'_>) -> Result<Option<Items>, sqlx::Error> {
    let (db, id) = (&session.context.db, session.upstream.id);
    Ok(coverage::held(db, id, request.filter).await?.map(Arc::new))
}

fn within(items: &Items, span: Span) -> Items {
    let is_within =
        |at: u64| i64::try_from(at).is_ok_and(|at| (span.since..=span.until).contains(&at));
    if items.iter().all(|(at, _)| is_within(*at)) {
        return items.clone();
    }
    Arc::new(items.iter().filter(|(at, _)| is_within(*at)).copied().collect())
}

/// Stores that the relay does not support NIP-77; its history is paged.
async fn unsupported(session: &Session, why: &str) -> Result<Verdict, StepError> {
    let id = session.upstream.id;
    upstream::judge_negentropy(&session.context.db, id, Some(why)).await?;
    Ok(Verdict::Paged(None))
}

/// Compares what we hold of a window with the relay's events, and fetches what we lack.
async fn compare_window(
    session: &Session,
    request: &Request<'_>,
    span: Span,
    items: Items,
    account: &mut Account,
) -> Result<Verdict, StepError> {
    let (db, id) = (&session.context.db, session.upstream.id);
    let window = Window {
        filter: request.filter,
        since: span.since,
        until: span.until,
        frame_size: session.settings.negentropy_frame_size,
        first_answer: session.settings.negentropy_timeout(),
        silence: session.context.frame_within,
    };
    let mut intake = session.intake(Source::Batch(request.purpose));
    let asked = session.asked(request.filter, span.since, Some(span.until)).await?;
    let both = both(session, &window, items.clone(), &mut intake).await;
    account.add(&intake.settle().await?);
    let (compared, fetched) = match both {
        Ok(both) => both,
        Err(NegError::Step(error)) => return Err(error),
        Err(NegError::Busy(why)) => return Err(StepError::RateLimited(why)),
        Err(NegError::TooBig(most)) => return Ok(Verdict::TooBig(most)),
        Err(NegError::Slow) => return Ok(Verdict::Slow),
        Err(NegError::Ended(_)) if span.seconds() > SHORTEST => {
            return Ok(Verdict::TooBig(None));
        }
        Err(NegError::Unsupported(why) | NegError::Protocol(why)) => {
            return unsupported(session, &why).await;
        }
        Err(error @ NegError::Unanswered(_)) => {
            return unsupported(session, &error.to_string()).await;
        }
        Err(_) => return Ok(Verdict::Paged(None)),
    };
    account.fetched.is_compared = true;
    if session.upstream.negentropy_verdict != "supported" {
        upstream::judge_negentropy(db, id, None).await?;
    }
    if fetched.is_cut {
        return Ok(if fetched.delivered > 0 { Verdict::Again } else { Verdict::Paged(None) });
    }
    let withheld = deliver_rest(session, request, fetched.undelivered, account).await?;
    let is_delivered = withheld.is_empty();
    if !is_delivered {
        account.withheld = Some((span, withheld));
    }
    if request.purpose == Purpose::Reconnect {
        return Ok(Verdict::Whole); // as far as the relay shows; the daily verification proves it
    }
    if !is_delivered {
        return Ok(Verdict::Paged(None));
    }
    let revealed = Revealed { items: &items, compared: &compared, fetched: fetched.edges };
    Ok(match proof::prove(&session.connection, asked, span.until, &revealed).await? {
        Proof::Whole => Verdict::Whole,
        Proof::CutBelow(at) | Proof::UnclearBelow(at) => Verdict::Paged(Some(at)),
        Proof::Cut => Verdict::Paged(None),
    })
}

async fn both(
    session: &Session,
    window: &Window<'_>,
    items: Items,
    intake: &mut Intake,
) -> Result<(negentropy::Compared, fetch::Fetched), NegError> {
    let connection = &session.connection;
    let (needed, to_fetch) = mpsc::channel(WAITING_IDS);
    let none = HashSet::new();
    let compared = negentropy::compare(connection, window, items, needed);
    let fetched = fetch::fetch(connection, to_fetch, how(session, window.filter, &none), intake);
    tokio::try_join!(compared, async { fetched.await.map_err(NegError::from) })
}

fn how<'a>(session: &Session, filter: &'a Filter, waiting: &'a HashSet<EventId>) -> How<'a> {
    let size = usize::try_from(session.settings.batch_size).unwrap_or(usize::MAX);
    How { size, wanted: Wanted { filter, limits: session.settings.limits() }, waiting }
}

/// Requests ids again that were listed and not delivered. Returns those that are not delivered in three rounds
/// either.
async fn deliver_rest(
    session: &Session,
    request: &Request<'_>,
    mut missing: Vec<EventId>,
    account: &mut Account,
) -> Result<Vec<EventId>, StepError> {
    for _ in 1..ROUNDS {
        if missing.is_empty() {
            break;
        }
        let (sender, ids) = mpsc::channel(missing.len());
        for id in &missing {
            let _fits = sender.try_send(*id);
        }
        drop(sender);
        let (mut intake, none) = (session.intake(Source::Batch(request.purpose)), HashSet::new());
        let fetched = fetch::fetch(
            &session.connection,
            ids,
            how(session, request.filter, &none),
            &mut intake,
        )
        .await;
        account.add(&intake.settle().await?);
        missing = fetched?.undelivered;
    }
    Ok(missing)
}

/// Notes a gap for events that the relay lists in a window, and shows neither by id nor page by page.
pub(super) async fn note_withheld(
    session: &Session,
    request: &Request<'_>,
    account: &mut Account,
) -> Result<(), sqlx::Error> {
    let Some((span, mut ids)) = account.withheld.take() else { return Ok(()) };
    if let Some(items) = held(session, request).await? {
        let ours: HashSet<EventId> = items.iter().map(|(_, id)| *id).collect();
        ids.retain(|id| !ours.contains(id));
    }
    if !ids.is_empty() {
        account.gaps.push(Gap::span(span.since, span.until, &why_withheld(&ids)));
    }
    Ok(())
}

fn why_withheld(ids: &[EventId]) -> String {
    let named: Vec<String> = ids.iter().take(NAMED).map(ToString::to_string).collect();
    let more = if ids.len() > NAMED { ", and others" } else { "" };
    let (count, named) = (ids.len(), named.join(", "));
    format!("the relay lists {count} events and does not deliver them: {named}{more}")
}
