//! The standing subscriptions of a relay, and the events that come by them.

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::Poll,
    time::{Duration, Instant},
};

use serde_json::json;
use tender_jobs::{
    grasp::{
        coverage::filters::Bounds,
        family::{Family, Source},
    },
    mirror::{event::Tally, filter::Filter},
    queue,
};

use super::Session;
use crate::mirror::{
    connection::{Heard, Subscription},
    error::StepError,
    intake::{FLUSH_AFTER, Intake},
};

/// The longest wait until a relay confirms a subscription, by EOSE or an event.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);
/// The pause before a closed subscription is opened again. It doubles with each refusal.
const REOPEN: Duration = Duration::from_secs(65);
/// The longest such pause.
const REOPEN_CAP: Duration = Duration::from_mins(15);

/// A filter that is followed.
#[derive(Debug)]
pub(super) struct Standing {
    pub(super) filter: Filter,
    state: State,
    /// Refusals since the subscription was last confirmed.
    refusals: u32,
}

#[derive(Debug)]
enum State {
    /// The relay was asked, and has to confirm until then.
    Asked(Subscription, Instant),
    Open(Subscription),
    /// The relay ended it: opened again then. Events since this second may be missed.
    Closed {
        again: Instant,
        since: i64,
    },
}

impl Standing {
    fn is_open(&self) -> bool {
        matches!(self.state, State::Open(_))
    }

    fn subscription(&mut self) -> Option<&mut Subscription> {
        match &mut self.state {
            State::Asked(subscription, _) | State::Open(subscription) => Some(subscription),
            State::Closed { .. } => None,
        }
    }

    fn confirm(&mut self) {
        self.refusals = 0;
        let closed = State::Closed { again: Instant::now(), since: 0 };
        self.state = match std::mem::replace(&mut self.state, closed) {
            State::Asked(subscription, _) => State::Open(subscription),
            state => state,
        };
    }

    fn close(&mut self, since: i64) {
        let pause = REOPEN.saturating_mul(1 << self.refusals.min(8)).min(REOPEN_CAP);
        self.refusals += 1;
        self.state = State::Closed { again: Instant::now() + pause, since };
    }
}

/// Items that are followed, and the subscriptions that cover them.
#[derive(Debug)]
pub(super) struct Cover {
    pub(super) family: Family,
    /// Sorted.
    pub(super) items: Vec<String>,
    pub(super) standing: Vec<Standing>,
}

/// Items beyond the limit of open subscriptions. They are polled in turn.
#[derive(Debug)]
pub(super) struct Polled {
    pub(super) family: Family,
    /// Sorted.
    pub(super) items: Vec<String>,
    pub(super) due: Instant,
    /// Everything up to this second was polled.
    pub(super) since: i64,
    /// When the last poll began, in Unix seconds.
    pub(super) asked: i64,
}

/// What is followed of a relay.
pub(super) struct Live {
    pub(super) bounds: Bounds,
    pub(super) covers: Vec<Cover>,
    pub(super) overflow: VecDeque<Polled>,
    intake: Intake,
    /// When the events that wait are stored at the latest.
    flush_at: Option<Instant>,
    /// Where the next look for a message begins, so that no subscription starves the others.
    turn: usize,
    /// Events that no subscription asked for.
    pub(super) violations: i64,
}

/// A filter that was closed and is open again. Its events since this second may have been missed.
pub(super) struct Reopened {
    pub(super) family: Family,
    pub(super) items: Vec<String>,
    pub(super) filter: Filter,
    pub(super) since: i64,
}

/// A message of a standing subscription.
pub(super) struct Message {
    cover: usize,
    standing: usize,
    heard: Result<Heard, StepError>,
}

impl Live {
    pub(super) fn new(session: &Session) -> Self {
        Self {
            bounds: Bounds::of(session.upstream.information.as_ref()),
            covers: Vec::new(),
            overflow: VecDeque::new(),
            intake: session.intake(Source::Live),
            flush_at: None,
            turn: 0,
            violations: 0,
        }
    }

    /// The number of followed filters, open or not.
    pub(super) fn count(&self) -> usize {
        self.covers.iter().map(|cover| cover.standing.len()).sum()
    }

    /// Whether the relay has confirmed every subscription.
    pub(super) fn is_open(&self) -> bool {
        self.covers.iter().flat_map(|cover| &cover.standing).all(Standing::is_open)
    }

    /// Waits for the next message of any subscription.
    pub(super) async fn next(&mut self) -> Message {
        poll_fn(|cx| {
            let count = self.covers.len();
            self.turn = self.turn.wrapping_add(1);
            for step in 0..count {
                let cover = (self.turn + step) % count;
                for (standing, one) in self.covers[cover].standing.iter_mut().enumerate() {
                    let Some(subscription) = one.subscription() else { continue };
                    if let Poll::Ready(heard) = subscription.poll_next(cx) {
                        return Poll::Ready(Message { cover, standing, heard });
                    }
                }
            }
            Poll::Pending
        })
        .await
    }

    /// Takes a message. Returns why the relay ended a subscription, if it did.
    pub(super) async fn take(
        &mut self,
        session: &Session,
        message: Message,
    ) -> Result<Option<StepError>, StepError> {
        let Message { cover, standing, heard } = message;
        let one = &mut self.covers[cover].standing[standing];
        let error = match heard {
            Ok(Heard::Event(received)) => {
                one.confirm();
                let event = received.parse(session.settings.limits());
                if event.as_ref().is_ok_and(|event| !one.filter.matches(event)) {
                    self.violations += 1;
                    return Ok(None);
                }
                self.intake.offer(event).await?;
                self.flush_at.get_or_insert_with(|| Instant::now() + FLUSH_AFTER);
                return Ok(None);
            }
            Ok(Heard::Closed(why)) => StepError::of_closed(&why),
            Ok(Heard::Eose) => {
                one.confirm();
                return Ok(None);
            }
            Ok(_) => return Ok(None),
            Err(error) if session.connection.lost().is_some() => return Err(error),
            Err(error) => error,
        };
        one.close(queue::now(&session.context.db).await?.timestamp());
        Ok(Some(error))
    }

    /// Closes the subscriptions that the relay has not confirmed in time. Returns whether there are any.
    pub(super) async fn close_silent(&mut self, session: &Session) -> Result<bool, StepError> {
        let is_late = |one: &Standing| matches!(&one.state, State::Asked(_, until) if *until < Instant::now());
        if !self.covers.iter().flat_map(|cover| &cover.standing).any(is_late) {
            return Ok(false);
        }
        let now = queue::now(&session.context.db).await?.timestamp();
        let all = self.covers.iter_mut().flat_map(|cover| &mut cover.standing);
        all.filter(|one| is_late(one)).for_each(|one| one.close(now));
        Ok(true)
    }

    /// Opens a closed subscription again whose pause is over.
    pub(super) async fn reopen(
        &mut self,
        session: &Session,
    ) -> Result<Option<Reopened>, StepError> {
        let now = Instant::now();
        for cover in &mut self.covers {
            for one in &mut cover.standing {
                let State::Closed { again, since } = one.state else { continue };
                if again > now {
                    continue;
                }
                *one = stand(session, one.filter.clone(), one.refusals).await?;
                let (family, items) = (cover.family, cover.items.clone());
                return Ok(Some(Reopened { family, items, filter: one.filter.clone(), since }));
            }
        }
        Ok(None)
    }

    /// Lets every closed subscription be opened again at once.
    pub(super) fn reopen_now(&mut self) {
        for one in self.covers.iter_mut().flat_map(|cover| &mut cover.standing) {
            if let State::Closed { again, .. } = &mut one.state {
                *again = Instant::now();
            }
        }
    }

    /// When the events that wait are to be stored: now if nothing is being stored, else a little later.
    pub(super) fn flush_at(&mut self) -> Result<Option<Instant>, StepError> {
        let is_idle = self.intake.reap()?;
        let waits = !self.intake.is_empty();
        Ok(self.flush_at.filter(|_| waits).map(|at| if is_idle { Instant::now() } else { at }))
    }

    /// Begins to store the events that wait.
    pub(super) async fn flush(&mut self) -> Result<(), StepError> {
        self.flush_at = None;
        self.intake.flush().await
    }

    /// Stores the events that wait, and returns the counts that were not returned before.
    pub(super) async fn settle(&mut self) -> Result<Tally, StepError> {
        self.intake.settle().await
    }

    /// Returns the counts of events that were stored since the last call.
    pub(super) fn take_tally(&mut self) -> Tally {
        self.intake.take_tally()
    }
}

/// Subscribes to the events of a filter that are published from now on. A relay that refuses the limit 0
/// is asked for one event.
pub(super) async fn stand(
    session: &Session,
    filter: Filter,
    refusals: u32,
) -> Result<Standing, StepError> {
    let subscription = session.connection.subscribe("live");
    let mut asked = filter.to_json();
    asked.insert("limit".to_owned(), json!(refusals % 2));
    session.connection.send(&json!(["REQ", subscription.id(), asked])).await?;
    let state = State::Asked(subscription, Instant::now() + CONFIRM_WITHIN);
    Ok(Standing { filter, state, refusals })
}
