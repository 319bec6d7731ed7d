//! The standing subscriptions of a relay, and the events that come by them.
//!
//! - `standing`: one subscription, its state, and what it may have missed. `cover`: items that are followed together.

mod cover;
mod standing;

use std::{
    collections::VecDeque,
    future::poll_fn,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use serde_json::json;
use standing::{Confirmed, State};
use tender_jobs::{
    grasp::{
        coverage::filters::Bounds,
        family::{Family, Source},
    },
    mirror::{event::Tally, filter::Filter},
    queue,
};

use uuid::Uuid;

use super::Session;
use crate::mirror::{
    connection::Heard,
    error::StepError,
    intake::{FLUSH_AFTER, Intake},
};

pub(super) use cover::{Cover, Dropped, Polled};
pub(super) use standing::Standing;

/// The longest wait until a relay confirms a subscription, by EOSE or an event.
const CONFIRM_WITHIN: Duration = Duration::from_secs(30);

/// What is followed of a relay.
pub(super) struct Live {
    pub(super) bounds: Bounds,
    pub(super) covers: Vec<Cover>,
    pub(super) overflow: VecDeque<Polled>,
    pub(super) dropped: Vec<Dropped>,
    intake: Intake,
    /// When the events that wait are stored at the latest.
    flush_at: Option<Instant>,
    /// Where the next look for a message begins, so that no subscription starves the others.
    turn: usize,
    /// Covers are packed again from then on: the relay refused a packed one.
    pub(super) pack_from: Instant,
    /// Events that no subscription asked for.
    pub(super) violations: i64,
}

/// The fetch of what a closed filter may have missed.
pub(super) struct Missed {
    /// The standing subscription.
    pub(super) standing: Uuid,
    pub(super) family: Family,
    pub(super) items: Vec<String>,
    pub(super) filter: Filter,
    /// Unix seconds.
    pub(super) since: i64,
    /// Whether the history of the items has yet to come.
    pub(super) is_wanting: bool,
}

/// A subscription that the relay ended.
pub(super) struct Ended {
    pub(super) standing: Uuid,
    pub(super) error: StepError,
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
            dropped: Vec::new(),
            intake: session.intake(Source::Live),
            flush_at: None,
            turn: 0,
            pack_from: Instant::now(),
            violations: 0,
        }
    }

    fn all(&mut self) -> impl Iterator<Item = &mut Standing> {
        self.covers.iter_mut().flat_map(|cover| &mut cover.standing)
    }

    /// Returns a standing subscription that was not dropped since.
    pub(super) fn standing(&mut self, id: Uuid) -> Option<&mut Standing> {
        self.all().find(|one| one.id == id)
    }

    /// Begins the repair that is due. `with_wanting` says whether it may be one of items whose history has yet
    /// to come.
    pub(super) fn next_repair(&mut self, with_wanting: bool) -> Option<Missed> {
        for cover in self.covers.iter_mut().filter(|cover| with_wanting || !cover.is_wanting) {
            for one in &mut cover.standing {
                let Some(since) = one.begin_repair() else { continue };
                let (family, items) = (cover.family, cover.items.clone());
                let (standing, filter) = (one.id, one.filter.clone());
                let is_wanting = cover.is_wanting;
                return Some(Missed { standing, family, items, filter, since, is_wanting });
            }
        }
        None
    }

    pub(super) fn has_repair(&self, with_wanting: bool) -> bool {
        let covers = self.covers.iter().filter(|cover| with_wanting || !cover.is_wanting);
        covers.flat_map(|cover| &cover.standing).any(Standing::is_due)
    }

    /// Returns the position of a poll that is due.
    pub(super) fn due_poll(&self, with_wanting: bool) -> Option<usize> {
        let now = Instant::now();
        self.overflow.iter().position(|one| one.due <= now && (with_wanting || !one.is_wanting))
    }

    /// Waits for the next message of any subscription.
    pub(super) async fn next(&mut self) -> Message {
        poll_fn(|cx| {
            let count = self.covers.len();
            self.turn = self.turn.wrapping_add(1);
            let message =
                (0..count).find_map(|step| self.poll_cover((self.turn + step) % count, cx));
            message.map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    fn poll_cover(&mut self, cover: usize, cx: &mut Context<'_>) -> Option<Message> {
        for (standing, one) in self.covers[cover].standing.iter_mut().enumerate() {
            let Some(subscription) = one.subscription() else { continue };
            if let Poll::Ready(heard) = subscription.poll_next(cx) {
                return Some(Message { cover, standing, heard });
            }
        }
        None
    }

    /// Returns a message that has already come by a cover that is being replaced by another.
    pub(super) async fn waiting(&mut self, successor: Uuid) -> Option<Message> {
        let replaced: Vec<usize> = (0..self.covers.len())
            .filter(|index| self.covers[*index].successor == Some(successor))
            .collect();
        // Without the budget of a task, after which a channel seems to be empty.
        tokio::task::unconstrained(poll_fn(|cx| {
            Poll::Ready(replaced.iter().find_map(|index| self.poll_cover(*index, cx)))
        }))
        .await
    }

    /// Takes a message. Returns why the relay ended a subscription, if it did.
    pub(super) async fn take(
        &mut self,
        session: &Session,
        message: Message,
    ) -> Result<Option<Ended>, StepError> {
        let Message { cover, standing, heard } = message;
        let one = &mut self.covers[cover].standing[standing];
        let error = match heard {
            Ok(Heard::Event(received)) => {
                one.confirm(Confirmed::Event);
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
                one.confirm(Confirmed::Eose);
                return Ok(None);
            }
            Ok(_) => return Ok(None),
            Err(error) if session.connection.lost().is_some() => return Err(error),
            Err(error) => error,
        };
        one.close(queue::now(&session.context.db).await?.timestamp(), &error.to_string());
        Ok(Some(Ended { standing: one.id, error }))
    }

    /// Closes the subscriptions that the relay has not confirmed in time. Returns whether there are any.
    pub(super) async fn close_silent(&mut self, session: &Session) -> Result<bool, StepError> {
        if !self.all().any(|one| one.is_late()) {
            return Ok(false);
        }
        self.close_late(queue::now(&session.context.db).await?.timestamp());
        Ok(true)
    }

    /// Opens a closed subscription again whose pause is over. What it may have missed is to be fetched.
    pub(super) async fn reopen(&mut self, session: &Session) -> Result<(), StepError> {
        let now = Instant::now();
        let is_due =
            |one: &&mut Standing| matches!(one.state, State::Closed { again, .. } if again <= now);
        if let Some(one) = self.all().find(is_due) {
            let at = queue::now(&session.context.db).await?.timestamp();
            let state = ask(session, &one.filter, one.refusals, at).await?;
            one.reopened(state);
        }
        Ok(())
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

/// Subscribes to the events of a filter that are published from now on, which is `at`.
pub(super) async fn stand(
    session: &Session,
    filter: Filter,
    at: i64,
) -> Result<Standing, StepError> {
    let state = ask(session, &filter, 0, at).await?;
    Ok(Standing::new(filter, state))
}

/// A relay that refuses the limit 0 is asked for one event.
async fn ask(
    session: &Session,
    filter: &Filter,
    refusals: u32,
    at: i64,
) -> Result<State, StepError> {
    let subscription = session.connection.subscribe("live");
    let mut asked = filter.to_json();
    asked.insert("limit".to_owned(), json!(refusals % 2));
    session.connection.send(&json!(["REQ", subscription.id(), asked])).await?;
    Ok(State::Asked(subscription, Instant::now() + CONFIRM_WITHIN, at))
}
