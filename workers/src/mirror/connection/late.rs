//! Events that come after the end of the page (EOSE) that they belong to. Such an event may have been
//! published in the meantime; else the upstream ended the page too early, and may have left out any
//! event of the requested window.

use std::{
    collections::{HashMap, VecDeque},
    sync::Mutex,
};

use serde::Deserialize;
use tender_jobs::mirror::event::EventId;
use uuid::Uuid;

use super::locked;

/// The finished requests that are remembered.
const REQUESTS: usize = 64;
/// The late events that are remembered, by id. Further ones count as well, for the window of their
/// request.
const EVENTS: usize = 100;
/// The windows that are remembered.
const WINDOWS: usize = 1000;

/// The window of a page that a lane requested, in Unix seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Window {
    pub(crate) lane: Uuid,
    pub(crate) since: i64,
    pub(crate) until: i64,
}

/// A request: its subscription, and its window.
#[derive(Debug)]
struct Request {
    subscription: String,
    window: Window,
    has_ended: bool,
}

/// The finished requests of a connection, and what came late for them.
#[derive(Debug, Default)]
pub(super) struct Late {
    requests: Mutex<VecDeque<Request>>,
    found: Mutex<Found>,
}

#[derive(Debug, Default)]
struct Found {
    /// The ids and times of late events, and the lane that requested them.
    events: Vec<(Uuid, EventId, i64)>,
    /// The windows for which events came late, and whether each is stored as a gap. They stay until a
    /// walk takes them, because a walk that has not noticed them would close their gaps.
    windows: HashMap<Window, bool>,
}

#[derive(Deserialize)]
struct Claims {
    id: String,
    created_at: i64,
}

impl Late {
    /// Remembers the window of a subscription.
    pub(super) fn requested(&self, subscription: &str, window: Window) {
        let mut requests = locked(&self.requests);
        if requests.len() >= REQUESTS {
            requests.pop_front();
        }
        let subscription = subscription.to_owned();
        requests.push_back(Request { subscription, window, has_ended: false });
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
            .map(|request| request.window);
        let Some(window) = window else { return false };
        let claims = serde_json::from_str::<Claims>(event).ok();
        let claims = claims
            .filter(|claims| (window.since..=window.until).contains(&claims.created_at))
            .and_then(|claims| Some((EventId::parse(&claims.id)?, claims.created_at)));
        if let Some(claims) = claims {
            locked(&self.found).note(window, claims);
        }
        true
    }

    /// Returns the late events of a window, in Unix seconds, and forgets that any came late for it.
    pub(super) fn take(&self, lane: Uuid, since: i64, until: i64) -> Vec<EventId> {
        let mut found = locked(&self.found);
        let is_within = |at: i64| (since..=until).contains(&at);
        found.windows.retain(|window, _| {
            window.lane != lane || !is_within(window.since) || !is_within(window.until)
        });
        let taken = found.events.extract_if(.., |(of, _, at)| *of == lane && is_within(*at));
        taken.map(|(_, id, _)| id).collect()
    }

    /// Returns the windows for which events came late since the last call.
    pub(super) fn untold(&self) -> Vec<Window> {
        let mut found = locked(&self.found);
        let untold = found.windows.iter_mut().filter(|(_, is_told)| !**is_told);
        let untold = untold.map(|(window, is_told)| {
            *is_told = true;
            *window
        });
        untold.collect()
    }
}

impl Found {
    fn note(&mut self, window: Window, event: (EventId, i64)) {
        if self.events.len() < EVENTS {
            self.events.push((window.lane, event.0, event.1));
        }
        if self.windows.len() >= WINDOWS {
            self.windows.retain(|_, is_told| !*is_told);
        }
        if self.windows.len() < WINDOWS {
            self.windows.entry(window).or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u8, at: i64) -> String {
        serde_json::json!({ "id": hex::encode([number; 32]), "created_at": at }).to_string()
    }

    #[test]
    fn a_late_event_makes_its_whole_window_a_gap_until_a_walk_takes_it() {
        let (noticed, lane) = (Late::default(), Uuid::nil());
        let window = Window { lane, since: 0, until: 1000 };
        noticed.requested("a", window);
        assert!(!noticed.takes("a", &event(1, 500)), "the page has not ended");
        noticed.ended("a");
        for number in 0..=200 {
            assert!(noticed.takes("a", &event(number, 500)));
        }
        assert!(noticed.takes("a", &event(1, 5000)), "outside of the window");
        assert_eq!(noticed.untold(), [window]);
        assert!(noticed.untold().is_empty(), "told once");
        assert_eq!(noticed.take(lane, 0, 2000).len(), EVENTS, "the walk still learns of them");
        assert!(noticed.take(lane, 0, 2000).is_empty());
    }
}
