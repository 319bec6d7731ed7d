//! How a filter is fetched: page by page, or by negentropy against what we hold.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use tender_jobs::{
    grasp::{
        admission::Followed,
        batch::Fetched,
        coverage,
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
use tokio::sync::mpsc;
use uuid::Uuid;

use super::Session;
use crate::mirror::{
    backfill::poll,
    error::StepError,
    fetch::{self, How, Wanted},
    intake::Intake,
    negentropy::{self, Compared, NegError, Window},
    page::{Asked, FUTURE, Walk},
    proof::{self, Proof, Revealed},
};

/// A filter is compared instead of paged if we hold this many of its events.
const WORTH_COMPARING: i64 = 100;
/// The rounds in which ids are requested that the relay lists and does not deliver.
const ROUNDS: usize = 3;
/// The comparisons of one filter: a fetch that ran out of time goes on with another one.
const COMPARISONS: usize = 60;
/// The ids that may wait to be requested.
const WAITING_IDS: usize = 1000;
/// The longest time for one filter; a longer history fails, and its items go on in smaller batches.
const WITHIN: Duration = Duration::from_hours(1);

/// Requests everything of a filter since a second, and stores it.
pub(super) struct Request<'a> {
    pub(super) filter: &'a Filter,
    /// Unix seconds.
    pub(super) since: i64,
    pub(super) purpose: Purpose,
    /// Whether events are compared that we hold, if the relay can.
    pub(super) compares: bool,
}

/// The account of a filter.
#[derive(Default)]
pub(super) struct Account {
    pub(super) fetched: Fetched,
    pub(super) gaps: Vec<Gap>,
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
    let begun = Instant::now();
    if request.since == 0 && is_compared(session, request).await? {
        for _ in 0..COMPARISONS {
            match compare(session, request.filter, request.purpose, account).await? {
                Verdict::Whole => return Ok(()),
                Verdict::Again if begun.elapsed() < WITHIN => {}
                Verdict::Again | Verdict::Paged(None) => break,
                Verdict::Paged(Some(until)) => {
                    return walk(session, request, Some(until), begun, account).await;
                }
            }
        }
    }
    walk(session, request, None, begun, account).await
}

/// Whether a filter is compared: the relay may support NIP-77, and we hold enough to save a download.
async fn is_compared(session: &Session, request: &Request<'_>) -> Result<bool, sqlx::Error> {
    let db = &session.context.db;
    Ok(upstream::tries_negentropy(db, session.upstream.id).await?
        && (request.compares
            || coverage::holds_at_least(db, request.filter, WORTH_COMPARING).await?))
}

impl Session {
    /// Takes in events that came for this purpose.
    pub(super) fn intake(&self, source: Source) -> Intake {
        let gate = Followed { relay: self.lease.relay, epoch: self.lease.epoch, source };
        Intake::new(&self.context.db, self.upstream.id, None).through(Some(Arc::new(gate)))
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

/// Pages through the history.
async fn walk(
    session: &Session,
    request: &Request<'_>,
    until: Option<i64>,
    begun: Instant,
    account: &mut Account,
) -> Result<(), StepError> {
    let asked = session.asked(request.filter, request.since, until).await?;
    // A number of its own tells late events of this walk from those of others.
    let mut walk = Walk::new(Asked { lane: Some(Uuid::new_v4()), ..asked });
    let mut intake = session.intake(Source::Batch(request.purpose));
    let walked = loop {
        account.fetched.pages += 1;
        match walk.next(&session.connection, &mut intake).await {
            Ok(None) => break Ok(()),
            Ok(Some(_)) if begun.elapsed() < WITHIN => {}
            Ok(Some(_)) => break Err(endless()),
            Err(error) => break Err(error),
        }
    };
    for fact in walk.facts.drain(..) {
        upstream::learn(&session.context.db, session.upstream.id, fact).await?;
    }
    account.gaps.append(&mut walk.gaps);
    account.add(&intake.settle().await?);
    walked
}

fn endless() -> StepError {
    let hours = WITHIN.as_secs() / 3600;
    StepError::Protocol(format!("the history of the filter has no end after {hours} h"))
}

/// How a comparison ended.
enum Verdict {
    /// The relay has nothing of the filter that we have not decided on.
    Whole,
    /// Events came, and there are more.
    Again,
    /// The history is paged, up to this second if later ones are proven.
    Paged(Option<i64>),
}

/// Compares what we hold with the relay's events, and fetches what we lack. After a short loss of the
/// connection, the relay's set is not proven to be whole.
async fn compare(
    session: &Session,
    filter: &Filter,
    purpose: Purpose,
    account: &mut Account,
) -> Result<Verdict, StepError> {
    let (db, id) = (&session.context.db, session.upstream.id);
    let asked = session.asked(filter, 0, None).await?;
    let until = asked.now + FUTURE;
    let Some(items) = coverage::held(db, id, filter).await? else {
        return Ok(Verdict::Paged(None));
    };
    let items = Arc::new(items);
    let window = Window {
        filter,
        since: 0,
        until,
        frame_size: session.settings.negentropy_frame_size,
        first_answer: session.settings.negentropy_timeout(),
    };
    let mut intake = session.intake(Source::Batch(purpose));
    let both = both(session, &window, items.clone(), &mut intake).await;
    account.fetched.is_compared = true;
    let tally = intake.settle().await?;
    account.add(&tally);
    let (compared, fetched) = match both {
        Ok(both) => both,
        Err(NegError::Step(error)) => return Err(error),
        Err(NegError::Busy(why)) => return Err(StepError::RateLimited(why)),
        Err(NegError::Unsupported(why) | NegError::Protocol(why)) => {
            upstream::judge_negentropy(db, id, Some(&why)).await?;
            return Ok(Verdict::Paged(None));
        }
        Err(_) => return Ok(Verdict::Paged(None)),
    };
    if session.upstream.negentropy_verdict != "supported" {
        upstream::judge_negentropy(db, id, None).await?;
    }
    if fetched.is_cut {
        return Ok(if fetched.delivered > 0 { Verdict::Again } else { Verdict::Paged(None) });
    }
    deliver_rest(session, filter, purpose, fetched.undelivered, account).await?;
    if purpose == Purpose::Reconnect {
        return Ok(Verdict::Whole); // as far as the relay shows; the daily verification proves it
    }
    let revealed = Revealed { items: &items, compared: &compared, fetched: fetched.edges };
    Ok(match proof::prove(&session.connection, asked, until, &revealed).await? {
        Proof::Whole => Verdict::Whole,
        Proof::CutBelow(at) | Proof::UnclearBelow(at) => Verdict::Paged(Some(at)),
        Proof::Cut => Verdict::Paged(None),
    })
}

async fn both(
    session: &Session,
    window: &Window<'_>,
    items: Arc<Vec<(u64, EventId)>>,
    intake: &mut Intake,
) -> Result<(Compared, fetch::Fetched), NegError> {
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

/// Requests ids again that were listed and not delivered. Fails if some are not delivered in three
/// rounds: then the items stay missing.
async fn deliver_rest(
    session: &Session,
    filter: &Filter,
    purpose: Purpose,
    mut missing: Vec<EventId>,
    account: &mut Account,
) -> Result<(), StepError> {
    for _ in 1..ROUNDS {
        if missing.is_empty() {
            return Ok(());
        }
        let (sender, ids) = mpsc::channel(missing.len());
        for id in &missing {
            let _fits = sender.try_send(*id);
        }
        drop(sender);
        let (mut intake, none) = (session.intake(Source::Batch(purpose)), HashSet::new());
        let fetched =
            fetch::fetch(&session.connection, ids, how(session, filter, &none), &mut intake).await;
        account.add(&intake.settle().await?);
        missing = fetched?.undelivered;
    }
    match missing.first() {
        None => Ok(()),
        Some(id) => Err(StepError::Refused(format!(
            "it listed {} events, such as {id}, and did not deliver them in {ROUNDS} rounds",
            missing.len()
        ))),
    }
}

/// Compares a filter after its recent events were fetched, if the relay supports that. What cannot be
/// compared is left to the daily verification.
pub(super) async fn verify(
    session: &Session,
    filter: &Filter,
    account: &mut Account,
) -> Result<(), StepError> {
    for _ in 0..COMPARISONS {
        if !upstream::tries_negentropy(&session.context.db, session.upstream.id).await? {
            return Ok(());
        }
        match compare(session, filter, Purpose::Reconnect, account).await? {
            Verdict::Again => {}
            Verdict::Whole | Verdict::Paged(_) => return Ok(()),
        }
    }
    Ok(())
}
