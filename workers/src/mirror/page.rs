//! Pages: the events that an upstream sends for one REQ, up to EOSE. Only EOSE completes a page.
//! Silence, CLOSED, a lost connection and endless events are errors.
//!
//! - `walk`: the pages of a window, from its end to its beginning.
//! - `second`: a second that may hold more events than a page.

mod second;
mod walk;

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use tender_jobs::mirror::{
    event::{self, Event, EventId, Limits, Unusable},
    filter::Filter,
};

use super::{
    connection::{Connection, Heard},
    error::StepError,
};

pub(crate) use walk::Walk;

/// The longest duration of one page.
const PAGE_WITHIN: Duration = Duration::from_mins(1);
/// More violations than this in one page, and more than usable events, fail the lane.
const MANY_VIOLATIONS: i64 = 20;
/// An event that comes after the end of its page is late if it is older than this, in seconds. A
/// newer one may have been published in the meantime.
const LATE_AGE: i64 = 60;
/// How far an open-ended window reaches into the future, in seconds: events up to then may be
/// stored.
pub(crate) const FUTURE: i64 = 900;

/// The window that is polled, and the limits of its pages.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The filter of the lane.
    pub(crate) filter: &'a Filter,
    /// The first digits of the ids; `None` for all ids.
    pub(crate) prefix: Option<&'a str>,
    /// Unix seconds, inclusive.
    pub(crate) since: i64,
    /// Unix seconds, inclusive; `None` for a little later than now.
    pub(crate) until: Option<i64>,
    /// The requested number of events per page.
    pub(crate) limit: u64,
    /// The largest number that may be requested.
    pub(crate) most: u64,
    /// The number of events at which the upstream is known to cut a page.
    pub(crate) cap: Option<usize>,
    /// Whether the upstream's `until` excludes its second. Requests then name one second more.
    pub(crate) is_exclusive: bool,
    /// The longest wait between two messages.
    pub(crate) silence: Duration,
    /// The limits of an event.
    pub(crate) limits: Limits,
    /// The database's clock at the beginning of the work, in Unix seconds.
    pub(crate) now: i64,
}

/// A complete page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The events of the window.
    pub(crate) events: Vec<Event>,
    /// Messages that hold no usable event.
    pub(crate) unusable: Vec<Unusable>,
    /// The number of events outside the filter or the window.
    pub(crate) violations: i64,
}

impl Page {
    /// The number of events that the upstream sent, as far as they are known to differ.
    pub(crate) fn size(&self) -> usize {
        self.events.len() + self.unusable.len()
    }

    /// The ids and times of the events. An unusable event counts if it claims both.
    pub(crate) fn claims(&self) -> impl Iterator<Item = (EventId, i64)> {
        let usable = self.events.iter().map(|event| (event.id, event.created_at));
        usable.chain(self.unusable.iter().filter_map(|unusable| unusable.claims))
    }

    /// Whether the page holds an event of this second.
    pub(crate) fn shows(&self, second: i64) -> bool {
        self.claims().any(|(_, at)| at == second)
    }
}

/// Requests the page that ends at `until`. If the upstream requires authentication, waits for it
/// and retries the request.
pub(crate) async fn page(
    connection: &Connection,
    asked: Asked<'_>,
    until: i64,
) -> Result<Page, StepError> {
    match try_page(connection, asked, until).await {
        Err(StepError::Auth(_)) => {
            connection.authenticated().await?;
            try_page(connection, asked, until).await
        }
        ended => ended,
    }
}

async fn try_page(
    connection: &Connection,
    asked: Asked<'_>,
    until: i64,
) -> Result<Page, StepError> {
    let mut subscription = connection.subscribe("poll");
    subscription.is_page_of(asked.since, until.min(asked.now - LATE_AGE));
    let mut filter = asked.filter.to_json();
    let named = until.saturating_add(i64::from(asked.is_exclusive));
    filter.extend(bounds(asked.since, named, asked.limit));
    filter.extend(asked.prefix.map(|prefix| ("ids".to_owned(), json!([prefix]))));
    connection.send(&json!(["REQ", subscription.id(), filter])).await?;
    let (mut page, begun) = (Page::default(), Instant::now());
    let most = usize::try_from(asked.limit.saturating_mul(10)).unwrap_or(usize::MAX);
    loop {
        match subscription.next(asked.silence).await? {
            Heard::Event(text) => match event::parse(&text, asked.limits) {
                Ok(event) if is_within(&event, asked, until) => page.events.push(event),
                // The second that was named only because `until` excludes it.
                Ok(event) if is_within(&event, asked, named) => {}
                Ok(_) => page.violations += 1,
                Err(unusable) => page.unusable.push(unusable),
            },
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
    honest(page)
}

/// Refuses a page whose events were, for the most part, not requested.
fn honest(page: Page) -> Result<Page, StepError> {
    let (usable, violations) = (page.size(), page.violations);
    if usable == 0 && violations > 0 {
        let why = "a page held only events that were not requested";
        return Err(StepError::Protocol(why.to_owned()));
    }
    if violations > MANY_VIOLATIONS && usize::try_from(violations).is_ok_and(|v| v > usable) {
        let why = format!("a page held {violations} events that were not requested, of {usable}");
        return Err(StepError::Protocol(why));
    }
    Ok(page)
}

fn bounds(since: i64, until: i64, limit: u64) -> Map<String, Value> {
    let bounds = [("since", json!(since)), ("until", json!(until)), ("limit", json!(limit))];
    bounds.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

fn is_within(event: &Event, asked: Asked<'_>, until: i64) -> bool {
    let has_prefix = |prefix: &str| event.id.to_string().starts_with(prefix);
    (asked.since..=until).contains(&event.created_at)
        && asked.prefix.is_none_or(has_prefix)
        && asked.filter.matches(event)
}
