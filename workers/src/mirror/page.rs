//! Pages: the events that an upstream sends for one REQ, up to EOSE. Only EOSE completes a page.
//! Silence, CLOSED, a lost connection and endless events are errors.
//!
//! - `walk`: the pages of a window, from its end to its beginning.
//! - `second`: a second that may hold more events than a page.

mod second;
mod walk;

use std::{
    collections::{HashMap, HashSet},
    time::{Duration, Instant},
};

use serde_json::{Map, Value, json};
use tender_jobs::mirror::{
    event::{Event, EventId, Limits, Unusable},
    filter::Filter,
};
use uuid::Uuid;

use super::{
    connection::{Connection, Heard, Window},
    error::StepError,
    intake::Intake,
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
    /// The lane whose window a page completes; `None` for a probe.
    pub(crate) lane: Option<Uuid>,
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

/// An event of a page, without its texts.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Seen {
    pub(crate) id: EventId,
    pub(crate) pubkey: [u8; 32],
    pub(crate) kind: u16,
    /// Unix seconds.
    pub(crate) created_at: i64,
}

/// Takes the events of a page one by one, so that a page of large events is never held as a whole.
pub(crate) struct Taker<'a> {
    /// The ids that were passed on already, and their times.
    pub(crate) seen: &'a mut HashMap<EventId, i64>,
    pub(crate) intake: &'a mut Intake,
    /// The only second whose events are taken; `None` for all of them.
    pub(crate) only: Option<i64>,
    /// The ids of this page that only copies claimed that cannot be used.
    pub(crate) unusable: HashSet<EventId>,
    /// Whether an event was passed on that was not seen before.
    pub(crate) is_new: bool,
}

impl Taker<'_> {
    async fn take(&mut self, event: Result<Event, Unusable>) -> Result<(), StepError> {
        let claims = match &event {
            Ok(event) => Some((event.id, event.created_at)),
            Err(unusable) => unusable.claims,
        };
        if self.only.is_some_and(|only| claims.is_none_or(|(_, at)| at != only)) {
            return Ok(());
        }
        let is_new = claims.is_some_and(|(id, at)| self.seen.insert(id, at).is_none());
        self.is_new |= is_new;
        let id = claims.map(|(id, _)| id);
        match &event {
            Err(_) if is_new => self.unusable.extend(id),
            _ => {}
        }
        // A copy that cannot be used does not stand for the event itself.
        let is_first = is_new || id.is_some_and(|id| event.is_ok() && self.unusable.remove(&id));
        if is_first || event.is_err() {
            self.intake.offer(event).await?;
        }
        Ok(())
    }
}

/// A complete page.
#[derive(Debug, Default)]
pub(crate) struct Page {
    /// The events of the window.
    pub(crate) events: Vec<Seen>,
    /// Messages that hold no usable event.
    pub(crate) unusable: Vec<Unusable>,
    /// The number of events outside the filter or the window.
    pub(crate) violations: i64,
    /// The number of events of the second that was named only because `until` excludes its second.
    pub(crate) beyond: usize,
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

    /// Notes an event. Returns whether it is one of the page. `named` is the last second of the
    /// request, which is later than `until` if the upstream's `until` excludes its second.
    fn note(
        &mut self,
        event: &Result<Event, Unusable>,
        asked: Asked<'_>,
        (until, named): (i64, i64),
    ) -> bool {
        match event {
            Ok(event) if is_within(event, asked, until) => {
                let Event { id, pubkey, kind, created_at, .. } = *event;
                self.events.push(Seen { id, pubkey, kind, created_at });
                true
            }
            Ok(event) if is_within(event, asked, named) => {
                self.beyond += 1;
                false
            }
            Ok(_) => {
                self.violations += 1;
                false
            }
            Err(unusable) => {
                self.unusable.push(*unusable);
                true
            }
        }
    }

    /// Whether the page holds an event of this second.
    pub(crate) fn shows(&self, second: i64) -> bool {
        self.claims().any(|(_, at)| at == second)
    }
}

/// Requests the page that ends at `until`, and passes its events to `taker`, if given. If the upstream
/// requires authentication, waits for it and retries the request.
pub(crate) async fn page(
    connection: &Connection,
    asked: Asked<'_>,
    until: i64,
    mut taker: Option<&mut Taker<'_>>,
) -> Result<Page, StepError> {
    match try_page(connection, asked, until, taker.as_deref_mut()).await {
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
    mut taker: Option<&mut Taker<'_>>,
) -> Result<Page, StepError> {
    let mut subscription = connection.subscribe("poll");
    if let Some(lane) = asked.lane {
        let until = until.min(asked.now - LATE_AGE);
        subscription.is_page_of(Window { lane, since: asked.since, until });
    }
    let mut filter = asked.filter.to_json();
    let named = until.saturating_add(i64::from(asked.is_exclusive));
    filter.extend(bounds(asked.since, named, asked.limit));
    filter.extend(asked.prefix.map(|prefix| ("ids".to_owned(), json!([prefix]))));
    connection.send(&json!(["REQ", subscription.id(), filter])).await?;
    let (mut page, begun, mut taking) = (Page::default(), Instant::now(), Duration::ZERO);
    let most = usize::try_from(asked.limit.saturating_mul(10)).unwrap_or(usize::MAX);
    loop {
        match subscription.next(asked.silence).await? {
            Heard::Event(received) => {
                let event = received.parse(asked.limits);
                drop(received);
                if page.note(&event, asked, (until, named))
                    && let Some(taker) = &mut taker
                {
                    // The relay is not to blame for our waits.
                    let taken_at = Instant::now();
                    taker.take(event).await?;
                    taking += taken_at.elapsed();
                }
            }
            Heard::Eose => break,
            Heard::Closed(why) => return Err(StepError::of_closed(&why)),
            _ => {}
        }
        if page.size() > most || begun.elapsed().saturating_sub(taking) > PAGE_WITHIN {
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
