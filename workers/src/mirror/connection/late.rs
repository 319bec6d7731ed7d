//! Events that come after the end of the page (EOSE) that they belong to. Such an event may have been
//! published in the meantime; else the upstream ended the page too early.

use std::{
    collections::VecDeque,
    sync::Mutex,
    time::{Duration, Instant},
};

use serde::Deserialize;
use tender_jobs::mirror::event::EventId;

use super::locked;

/// The requests that are remembered.
const REQUESTS: usize = 64;
/// The late events that are remembered.
const EVENTS: usize = 100;

/// A request for a page: its subscription, and its window in Unix seconds.
#[derive(Debug)]
struct Request {
    subscription: String,
    since: i64,
    until: i64,
    has_ended: bool,
}

#[derive(Debug)]
struct LateEvent {
    id: EventId,
    created_at: i64,
    came: Instant,
}

/// The last requests of a connection, and the events that came late for them.
#[derive(Debug, Default)]
pub(super) struct Late {
    requests: Mutex<VecDeque<Request>>,
    events: Mutex<VecDeque<LateEvent>>,
}

#[derive(Deserialize)]
struct Claims {
    id: String,
    created_at: i64,
}

impl Late {
    /// Remembers the window of a subscription.
    pub(super) fn requested(&self, subscription: &str, since: i64, until: i64) {
        let mut requests = locked(&self.requests);
        if requests.len() >= REQUESTS {
            requests.pop_front();
        }
        let subscription = subscription.to_owned();
        requests.push_back(Request { subscription, since, until, has_ended: false });
    }

    /// Remembers that the page of a subscription has ended.
    pub(super) fn ended(&self, subscription: &str) {
        let mut requests = locked(&self.requests);
        let found = requests.iter_mut().rev().find(|request| request.subscription == subscription);
        if let Some(request) = found {
            request.has_ended = true;
        }
    }

    /// Remembers an event, if it belongs to a page that has ended. Returns whether it does.
    pub(super) fn takes(&self, subscription: &str, event: &str) -> bool {
        let window = locked(&self.requests)
            .iter()
            .rev()
            .find(|request| request.has_ended && request.subscription == subscription)
            .map(|request| request.since..=request.until);
        let Some(window) = window else { return false };
        let claims = serde_json::from_str::<Claims>(event).ok();
        let claims = claims.filter(|claims| window.contains(&claims.created_at));
        let late = claims.and_then(|claims| Some((EventId::parse(&claims.id)?, claims.created_at)));
        let mut events = locked(&self.events);
        if let Some((id, created_at)) = late.filter(|_| events.len() < EVENTS) {
            events.push_back(LateEvent { id, created_at, came: Instant::now() });
        }
        true
    }

    /// Returns and forgets the late events that were created within a window.
    pub(super) fn take(&self, since: i64, until: i64) -> Vec<EventId> {
        let mut taken = Vec::new();
        locked(&self.events).retain(|event| {
            let is_within = (since..=until).contains(&event.created_at);
            if is_within {
                taken.push(event.id);
            }
            !is_within
        });
        taken
    }

    /// Returns and forgets the times of the late events that no walk has taken for `age`.
    pub(super) fn take_left(&self, age: Duration) -> Vec<i64> {
        let mut taken = Vec::new();
        locked(&self.events).retain(|event| {
            let is_left = event.came.elapsed() > age;
            if is_left {
                taken.push(event.created_at);
            }
            !is_left
        });
        taken
    }
}
