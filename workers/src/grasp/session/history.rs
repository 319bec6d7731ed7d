//! How a filter is fetched: page by page, or by negentropy against what we hold, within a bound of time.
//!
//! - `windows`: the comparison, window by window.

mod windows;

use std::{
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use tender_jobs::{
    grasp::{
        admission::Followed,
        batch::Fetched,
        coverage::{self, Walked},
        family::{Purpose, Source},
    },
    mirror::{
        event::{EventId, Tally},
        filter::Filter,
        lane::gap::Gap,
        upstream::{self, Learned},
    },
    queue,
};
use uuid::Uuid;

use super::{Session, passes::OVERLAP};
use crate::mirror::{
    backfill::{Span, poll},
    error::StepError,
    intake::Intake,
    page::{Asked, Walk},
};
use windows::Compared;

/// A filter is compared instead of paged if we hold this many of its events.
const WORTH_COMPARING: i64 = 100;
/// How much longer a fetch may take that has proven nothing yet.
const GRACE: Duration = Duration::from_mins(1);

/// Requests everything of a filter since a second, and stores it.
pub(super) struct Request<'a> {
    pub(super) filter: &'a Filter,
    /// Unix seconds.
    pub(super) since: i64,
    pub(super) purpose: Purpose,
    /// Whether events are compared that we hold, if the relay can.
    pub(super) compares: bool,
    /// What earlier fetches have proven.
    pub(super) walked: Option<Walked>,
}

/// The account of a filter.
#[derive(Default)]
pub(super) struct Account {
    pub(super) fetched: Fetched,
    pub(super) gaps: Vec<Gap>,
    /// Whether the fetch ended because it took too long, and what it has proven.
    pub(super) is_over: bool,
    pub(super) walked: Option<Walked>,
    /// What the relay listed in a window of the current filter, and did not deliver.
    withheld: Option<(Span, Vec<EventId>)>,
}

impl Account {
    fn add(&mut self, tally: &Tally) {
        self.fetched.received += tally.received();
        self.fetched.stored += tally.stored;
    }
}

/// Fetches a filter. Everything that came is stored, refused for good or parked when this returns, also
/// if it fails; the account tells it in both cases.
pub(super) async fn fetch(
    session: &Session,
    request: &Request<'_>,
    account: &mut Account,
) -> Result<(), StepError> {
    let mut clock = clock(session).await?;
    let Some(walked) = request.walked else {
        return fetch_below(session, request, None, &clock, account).await;
    };
    walk(session, request, (walked.at - OVERLAP, None), &clock, account).await.inspect_err(
        |_| {
            account.walked = None; // what is proven of the newest part is proven again
        },
    )?;
    clock.at = walked.at;
    if walked.until > 0 {
        fetch_below(session, request, Some(walked.until), &clock, account).await?;
    }
    Ok(())
}

async fn clock(session: &Session) -> Result<Clock, sqlx::Error> {
    let ends = Instant::now() + session.context.walk_within;
    Ok(Clock { at: queue::now(&session.context.db).await?.timestamp(), ends })
}

/// Fetches what is not newer than a second.
async fn fetch_below(
    session: &Session,
    request: &Request<'_>,
    mut until: Option<i64>,
    clock: &Clock,
    account: &mut Account,
) -> Result<(), StepError> {
    if request.since == 0 && is_compared(session, request).await? {
        match windows::compare(session, request, until, clock, account).await? {
            Compared::Whole => return Ok(()),
            Compared::Below(second) => until = second,
        }
    }
    // Else a relay that is slow to compare would leave no time to the pages.
    let clock = Clock { ends: Instant::now() + session.context.walk_within, ..*clock };
    let walked = walk(session, request, (request.since, until), &clock, account).await;
    if walked.is_ok() || account.is_over {
        windows::note_withheld(session, request, account).await?;
    }
    walked
}

/// Whether a filter is compared: the relay may support NIP-77, and we hold enough to save a download.
async fn is_compared(session: &Session, request: &Request<'_>) -> Result<bool, sqlx::Error> {
    let db = &session.context.db;
    Ok(tries_negentropy(session).await?
        && (request.compares
            || coverage::holds_at_least(db, request.filter, WORTH_COMPARING).await?))
}

/// Whether a comparison is worth an attempt in this session.
async fn tries_negentropy(session: &Session) -> Result<bool, sqlx::Error> {
    Ok(!session.compares_nothing.load(Ordering::Relaxed)
        && upstream::tries_negentropy(&session.context.db, session.upstream.id).await?)
}

impl Session {
    /// Takes in events that came for this purpose.
    pub(super) fn intake(&self, source: Source) -> Intake {
        let gate = Followed { relay: self.lease.relay, epoch: self.lease.epoch, source };
        let intake =
            Intake::new(&self.context.db, self.upstream.id, None).through(Some(Arc::new(gate)));
        if matches!(source, Source::Batch(_)) { intake.of_history() } else { intake }
    }

    async fn asked<'a>(
        &self,
        filter: &'a Filter,
        since: i64,
        until: Option<i64>,
    ) -> Result<Asked<'a>, StepError> {
        let learned: Learned = upstream::learned(&self.context.db, self.upstream.id).await?;
        let now = queue::now(&self.context.db).await?.timestamp();
        let window = (since, until);
        let asked = poll::request(&self.upstream, &self.settings, &learned, filter, window, now);
        Ok(Asked { silence: super::work::SILENCE, ..asked })
    }
}

/// The time of a fetch, and what it has proven.
struct Clock {
    /// When the fetch began, in Unix seconds.
    at: i64,
    ends: Instant,
}

impl Clock {
    fn is_over(&self) -> bool {
        Instant::now() >= self.ends
    }

    /// Whether a fetch ends that has proven nothing.
    fn is_late(&self) -> bool {
        Instant::now() >= self.ends + GRACE
    }

    /// Ends a fetch that takes too long. Everything after the second `until` is proven, if given.
    fn end(&self, until: Option<i64>, account: &mut Account) -> StepError {
        account.is_over = true;
        account.walked = until.map(|until| Walked { at: self.at, until });
        let rest = match until {
            Some(until) => format!("it goes on from second {until}"),
            None => "nothing of it is proven".to_owned(),
        };
        StepError::Silent(format!("the history of the filter takes too long; {rest}"))
    }
}

/// Pages through a part of the history: since a second, until another one.
async fn walk(
    session: &Session,
    request: &Request<'_>,
    (since, until): (i64, Option<i64>),
    clock: &Clock,
    account: &mut Account,
) -> Result<(), StepError> {
    let asked = session.asked(request.filter, since, until).await?;
    // A number of its own tells late events of this walk from those of others.
    let mut walk = Walk::new(Asked { lane: Some(Uuid::new_v4()), ..asked });
    let mut intake = session.intake(Source::Batch(request.purpose));
    let top = until.unwrap_or(i64::MAX);
    let walked = loop {
        account.fetched.pages += 1;
        match walk.next(&session.connection, &mut intake).await {
            Ok(None) => break Ok(None),
            Ok(Some(oldest)) if clock.is_over() && oldest < top && !walk.is_repeated() => {
                break Ok(Some(Some(oldest)));
            }
            Ok(Some(_)) if clock.is_late() => break Ok(Some(None)),
            Ok(Some(_)) => {}
            Err(error) => break Err(error),
        }
    };
    for fact in walk.facts.drain(..) {
        upstream::learn(&session.context.db, session.upstream.id, fact).await?;
    }
    account.gaps.append(&mut walk.gaps);
    account.add(&intake.settle().await?);
    match walked? {
        None => Ok(()),
        Some(until) => Err(clock.end(until, account)),
    }
}

/// Compares a filter after its recent events were fetched, if the relay supports that. What cannot be
/// compared is left to the daily verification.
pub(super) async fn verify(
    session: &Session,
    filter: &Filter,
    account: &mut Account,
) -> Result<(), StepError> {
    if tries_negentropy(session).await? {
        let (purpose, compares, walked) = (Purpose::Reconnect, true, None);
        let request = Request { filter, since: 0, purpose, compares, walked };
        let clock = clock(session).await?;
        let ended = windows::compare(session, &request, None, &clock, account).await;
        if !std::mem::take(&mut account.is_over) {
            ended?;
        }
        windows::note_withheld(session, &request, account).await?;
        account.walked = None;
    }
    Ok(())
}
