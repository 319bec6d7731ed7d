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

/// The finished requests that are remembered.
const REQUESTS: usize = 64;
/// The late events that are remembered.
const EVENTS: usize = 100;

/// A finished request: its subscription, and its window in Unix seconds.
#[derive(Debug)]
struct Request {
    subscription: String,
    since: i64,
    until: i64,
}

#[derive(Debug)]
struct LateEvent {
    id: EventId,
    created_at: i64,
    came: Instant,
}

/// The finished requests of a connection, and the events that came late for them.
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
    /// Remembers that the page of a subscription has ended.
    pub(super) fn ended(&self, subscription: &str, since: i64, until: i64) {
        let mut requests = locked(&self.requests);
        if requests.len() >= REQUESTS {
            requests.pop_front();
        }
        requests.push_back(Request { subscription: subscription.to_owned(), since, until });
    }

    /// Remembers an event without a route, if it belongs to a page that has ended.
    pub(super) fn note(&self, subscription: &str, event: &str) {
        let Ok(claims) = serde_json::from_str::<Claims>(event) else { return };
        let belongs = locked(&self.requests).iter().any(|request| {
            request.subscription == subscription
                && (request.since..=request.until).contains(&claims.created_at)
        });
        let Some(id) = EventId::parse(&claims.id).filter(|_| belongs) else { return };
        let mut events = locked(&self.events);
        if events.len() < EVENTS {
            events.push_back(LateEvent { id, created_at: claims.created_at, came: Instant::now() });
        }
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
