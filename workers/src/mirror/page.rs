//! Pages: the events that an upstream sends for one REQ, up to EOSE. Only EOSE completes a page.
//! Silence, CLOSED, a lost connection and endless events are errors.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tender_jobs::mirror::{
    event::{Event, EventId, Limits, Unusable},
    filter::Filter,
};

use super::{
    connection::{Connection, Heard},
    error::StepError,
    intake::Intake,
};

/// The longest duration of one page.
const PAGE_WITHIN: Duration = Duration::from_mins(1);
/// The smallest page that may have been cut off by the upstream's limit.
const SMALL: usize = 20;
/// How far an open-ended window reaches into the future, in seconds: events up to then may be
/// stored.
const FUTURE: i64 = 900;

/// The window that is polled, and the limits of its pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The filter of the lane.
    pub(crate) filter: &'a Filter,
    /// Unix seconds, inclusive.
    pub(crate) since: i64,
    /// Unix seconds, inclusive; `None` for a little later than now.
    pub(crate) until: Option<i64>,
    /// The requested number of events per page.
    pub(crate) limit: u64,
    /// The longest wait between two messages.
    pub(crate) silence: Duration,
    /// The limits of an event.
    pub(crate) limits: Limits,
}

/// An event of a page that was passed on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) id: EventId,
    /// Unix seconds.
    pub(crate) created_at: i64,
}

/// Takes the events of a page one by one, so that a page of large events is never held as a whole.
pub(crate) struct Taker<'a> {
    /// The ids that were passed on already, and their timestamps.
    pub(crate) seen: &'a mut HashMap<EventId, i64>,
    pub(crate) intake: &'a mut Intake,
    /// Whether an event was passed on that was not seen before.
    pub(crate) is_new: bool,
}

impl Taker<'_> {
    async fn take(&mut self, event: Result<Event, Unusable>) -> Result<(), StepError> {
        let claims = match &event {
            Ok(event) => Some((event.id, event.created_at)),
            Err(unusable) => unusable.claims,
        };
        let is_new = claims.is_some_and(|(id, at)| self.seen.insert(id, at).is_none());
        self.is_new |= is_new;
        if is_new || event.is_err() {
            self.intake.offer(event).await?;
        }
        Ok(())
    }
}

/// A complete page, whose events were passed on.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The events of the window.
    pub(crate) events: Vec<Seen>,
    /// Messages that hold no usable event.
    pub(crate) unusable: Vec<Unusable>,
    /// The number of events outside the filter or the window.
    pub(crate) violations: i64,
}

impl Page {
    /// Notes an event. Returns false if it was not requested.
    fn note(&mut self, event: &Result<Event, Unusable>, asked: Asked<'_>, until: i64) -> bool {
        match event {
            Ok(event) if !is_within(event, asked, until) => {
                self.violations += 1;
                return false;
            }
            Ok(Event { id, created_at, .. }) => {
                self.events.push(Seen { id: *id, created_at: *created_at });
            }
            Err(unusable) => self.unusable.push(*unusable),
        }
        true
    }
}

/// Requests the page that ends at `until`. If the upstream requires authentication, waits for it
/// and retries the request.
pub(crate) async fn page(
    connection: &Connection,
    asked: Asked<'_>,
    until: i64,
    taker: &mut Taker<'_>,
) -> Result<Page, StepError> {
    match try_page(connection, asked, until, taker).await {
        Err(StepError::Auth(_)) => {
            connection.authenticated().await?;
            try_page(connection, asked, until, taker).await
        }
        ended => ended,
    }
}

async fn try_page(
    connection: &Connection,
    asked: Asked<'_>,
    until: i64,
    taker: &mut Taker<'_>,
) -> Result<Page, StepError> {
    let mut subscription = connection.subscribe("poll");
    let mut filter = asked.filter.to_json();
    filter.extend(bounds(asked.since, until, asked.limit));
    connection.send(&json!(["REQ", subscription.id(), filter])).await?;
    let (mut page, begun) = (Page::default(), Instant::now());
    let most = usize::try_from(asked.limit.saturating_mul(10)).unwrap_or(usize::MAX);
    loop {
        match subscription.next(asked.silence).await? {
            Heard::Event(received) => {
                let event = received.parse(asked.limits);
                drop(received);
                if page.note(&event, asked, until) {
                    taker.take(event).await?;
                }
            }
            Heard::Eose => break,
            Heard::Closed(why) => return Err(StepError::of_closed(&why)),
            _ => {}
        }
        if page.events.len() + page.unusable.len() > most || begun.elapsed() > PAGE_WITHIN {
            return Err(StepError::Protocol(format!(
                "a page of {} events has no end after {most} events or {} s",
                asked.limit,
                PAGE_WITHIN.as_secs()
            )));
        }
    }
    if page.events.is_empty() && page.unusable.is_empty() && page.violations > 0 {
        return Err(StepError::Protocol(
            "a page held only events that were not requested".to_owned(),
        ));
    }
    Ok(page)
}

fn bounds(since: i64, until: i64, limit: u64) -> Map<String, Value> {
    let bounds = [("since", json!(since)), ("until", json!(until)), ("limit", json!(limit))];
    bounds.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn is_within(event: &Event, asked: Asked<'_>, until: i64) -> bool {
    (asked.since..=until).contains(&event.created_at) && asked.filter.matches(event)
}

/// Walks the pages of a window from its end to its beginning. The upstream may return fewer events
/// per page than requested.
pub(crate) struct Walk<'a> {
    asked: Asked<'a>,
    until: i64,
    /// The ids of the second that ends the last page, and their timestamps. The next page repeats
    /// this second.
    seen: HashMap<EventId, i64>,
    largest: usize,
    is_over: bool,
    /// The number of events in the first page.
    pub(crate) first_page: Option<usize>,
    /// The number of events that were not requested.
    pub(crate) violations: i64,
    /// The number of seconds that may hold more events than a page; each is a gap.
    pub(crate) saturated_seconds: i64,
    /// The newest event of the first page.
    pub(crate) newest: Option<EventId>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(asked: Asked<'a>, now: i64) -> Self {
        Self {
            asked,
            until: asked.until.unwrap_or(now + FUTURE),
            seen: HashMap::new(),
            largest: 0,
            is_over: false,
            first_page: None,
            violations: 0,
            saturated_seconds: 0,
            newest: None,
        }
    }

    /// Passes the next page to the intake. Returns the second from which on all events have been
    /// passed, or `None` if the window is complete.
    pub(crate) async fn next(
        &mut self,
        connection: &Connection,
        intake: &mut Intake,
    ) -> Result<Option<i64>, StepError> {
        if self.is_over {
            return Ok(None);
        }
        let mut taker = Taker { seen: &mut self.seen, intake, is_new: false };
        let page = page(connection, self.asked, self.until, &mut taker).await?;
        let is_new = taker.is_new;
        let size = page.events.len() + page.unusable.len();
        self.violations += page.violations;
        if self.first_page.replace(self.first_page.unwrap_or(size)).is_none() {
            self.newest = page.events.iter().max_by_key(|event| event.created_at).map(|e| e.id);
        }
        let Some(oldest) = self.oldest(&page) else {
            self.is_over = true;
            return Ok(None);
        };
        if !is_new && size >= self.largest.max(SMALL) {
            // The page holds one second only, and possibly not all of its events.
            self.saturated_seconds += 1;
            tracing::warn!(second = oldest, size, "gap: a second may hold more events than a page");
        }
        self.largest = self.largest.max(size);
        self.until = if is_new { oldest } else { oldest - 1 };
        self.is_over = self.until < self.asked.since;
        self.seen.retain(|_, at| *at <= self.until);
        Ok(Some(oldest))
    }

    /// Returns the oldest second of a page. An unusable event counts if its claimed time is in the
    /// window.
    fn oldest(&self, page: &Page) -> Option<i64> {
        let claimed = page.unusable.iter().filter_map(|unusable| unusable.claims);
        let claimed = claimed.map(|(_, at)| at);
        let within = claimed.filter(|at| (self.asked.since..=self.until).contains(at));
        page.events.iter().map(|event| event.created_at).chain(within).min()
    }
}
