//! The walk through a window, page after page, from new to old. The upstream may return fewer events
//! per page than requested, and its `until` may exclude the second that it names.
//!
//! Each page ends at the oldest second of the one before, and so repeats that second. A page that
//! holds only events of that second, all of them seen, ends the second. If older events follow, the
//! page was cut: the second may hold more events, and [`second`](super::second) asks for them.

use std::collections::HashMap;

use tender_jobs::mirror::{event::EventId, lane::gap::Gap, upstream::Fact};

use super::{Asked, FUTURE, LATE_AGE, Page, Taker, page, second};
use crate::mirror::{connection::Connection, error::StepError, intake::Intake};

/// Why a window is a gap.
const LATE: &str = "events came after the end of the page (EOSE) that they belong to";
/// The smallest page that may have been cut, if no smaller cap is known.
const SMALL: usize = 50;
/// A walk through a window.
pub(crate) struct Walk<'a> {
    pub(super) asked: Asked<'a>,
    /// The last second of the window.
    end: i64,
    /// Where the next page ends.
    until: i64,
    /// The ids of the second that ends the last page, and their times.
    pub(super) seen: HashMap<EventId, i64>,
    /// The largest page, and the size of the last one.
    largest: usize,
    last: usize,
    /// The second that the last page ended, and the number of its events in that page.
    ended: Option<(i64, usize)>,
    is_over: bool,
    /// Ids that came after the end of their page. If they do so again, the upstream does not answer
    /// truthfully.
    late: Option<Vec<EventId>>,
    has_events: bool,
    /// The number of events in the first page.
    pub(crate) first_page: Option<usize>,
    /// The number of events that were not requested.
    pub(crate) violations: i64,
    /// Seconds whose events may not all have come.
    pub(crate) gaps: Vec<Gap>,
    /// What the pages have shown about the upstream.
    pub(crate) facts: Vec<Fact>,
    /// The newest event of the first page.
    pub(crate) newest: Option<EventId>,
}

impl<'a> Walk<'a> {
    pub(crate) fn new(asked: Asked<'a>) -> Self {
        let end = asked.until.unwrap_or(asked.now + FUTURE);
        Self {
            asked,
            end,
            until: end,
            seen: HashMap::new(),
            largest: 0,
            last: 0,
            ended: None,
            is_over: false,
            late: None,
            has_events: false,
            first_page: None,
            violations: 0,
            gaps: Vec::new(),
            facts: Vec::new(),
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
            return self.finish(connection).await;
        }
        let (page, is_new) = self.ask(connection, intake).await?;
        self.violations += page.violations;
        if self.note_first(&page) {
            self.check_newest(connection, &page).await?;
        }
        let oldest = page.claims().map(|(_, at)| at).filter(|at| self.is_inside(*at)).min();
        if let Some((second, size)) = self.ended.take() {
            self.judge(connection, intake, (second, size), oldest.is_none()).await?;
        }
        let Some(oldest) = oldest else {
            self.is_over = true;
            return self.finish(connection).await;
        };
        let size = page.size();
        self.weigh(size, is_new);
        if is_new {
            self.until = oldest;
        } else {
            self.ended = Some((self.until, size));
            self.until -= 1;
        }
        self.is_over = self.until < self.asked.since;
        if let Some(ended) = self.ended.take_if(|_| self.is_over) {
            self.judge(connection, intake, ended, true).await?;
        }
        self.seen.retain(|_, at| *at <= self.until);
        Ok(Some(oldest))
    }

    /// Requests the page that ends at `until`. If it lacks the second that the page before it ended
    /// with, `until` may exclude its second: the page is requested again, one second later. The events
    /// go to the intake. Also returns whether there were new ones.
    async fn ask(
        &mut self,
        connection: &Connection,
        intake: &mut Intake,
    ) -> Result<(Page, bool), StepError> {
        let (until, asked) = (self.until, self.asked);
        let is_repeated = self.seen.values().any(|at| *at == until);
        let mut taker = Taker {
            seen: &mut self.seen,
            intake,
            only: None,
            unusable: std::collections::HashSet::default(),
            is_new: false,
        };
        let earlier = page(connection, asked, until, Some(&mut taker)).await?;
        if earlier.beyond > 0 {
            // `until` does not exclude its second any more: other events took the page's places.
            self.asked.is_exclusive = false;
            self.facts.push(Fact::InclusiveUntil);
            let again = page(connection, self.asked, until, Some(&mut taker)).await?;
            return Ok((again, taker.is_new));
        }
        if asked.is_exclusive || !is_repeated || earlier.shows(until) {
            return Ok((earlier, taker.is_new));
        }
        let later = page(connection, asked, until + 1, Some(&mut taker)).await?;
        let is_new = taker.is_new;
        if !later.shows(until) || later.shows(until + 1) {
            return Ok((earlier, is_new)); // the events of this second were deleted in the meantime
        }
        self.asked.is_exclusive = true;
        self.facts.push(Fact::ExclusiveUntil);
        Ok((later, is_new))
    }

    fn is_inside(&self, at: i64) -> bool {
        (self.asked.since..=self.until).contains(&at)
    }

    /// Notes the size and the newest event of the first page. Returns whether this is the first page.
    fn note_first(&mut self, page: &Page) -> bool {
        self.has_events |= page.size() > 0;
        if self.first_page.is_some() {
            return false;
        }
        self.first_page = Some(page.size());
        self.newest = page.events.iter().max_by_key(|event| event.created_at).map(|e| e.id);
        true
    }

    /// Fails if the first page was cut and does not hold the newest events of the window: a walk from
    /// new to old would miss them. Recent events may have been published after the page.
    async fn check_newest(&self, connection: &Connection, first: &Page) -> Result<(), StepError> {
        let end = self.end.min(self.asked.now - LATE_AGE);
        let newest = first.claims().map(|(_, at)| at).max().filter(|newest| *newest < end);
        let limit = usize::try_from(self.asked.limit).unwrap_or(usize::MAX);
        let Some(newest) = newest.filter(|_| first.size() >= limit.min(SMALL)) else {
            return Ok(());
        };
        let above = Asked { since: newest + 1, limit: 1, lane: None, ..self.asked };
        if page(connection, above, end, None).await?.size() == 0 {
            return Ok(());
        }
        Err(StepError::Protocol(
            "a page that was cut does not hold the newest events of its window".to_owned(),
        ))
    }

    /// Learns from the size of a page. A page that was not full, and that older events follow, was
    /// cut.
    fn weigh(&mut self, size: usize, is_new: bool) {
        let was_full = u64::try_from(self.last).is_ok_and(|last| last >= self.asked.limit);
        if is_new && self.last > 0 && !was_full {
            self.learn_cap(self.last);
        }
        if self.asked.cap.is_some_and(|cap| size > cap) {
            self.asked.cap = None;
            self.facts.push(Fact::PageCap(None));
        }
        self.largest = self.largest.max(size);
        self.last = size;
    }

    pub(super) fn learn_cap(&mut self, size: usize) {
        if size >= self.largest && self.asked.cap.is_none_or(|cap| size > cap) {
            self.asked.cap = Some(size);
            self.facts.push(Fact::PageCap(Some(i64::try_from(size).unwrap_or(i64::MAX))));
        }
    }

    /// Decides whether a second that a page ended is complete, and asks for its other events if it
    /// may not be. `is_oldest` says that the window holds nothing older: then the size of the page
    /// decides. Otherwise the page was cut, because it did not show the older events.
    async fn judge(
        &mut self,
        connection: &Connection,
        intake: &mut Intake,
        (at, size): (i64, usize),
        is_oldest: bool,
    ) -> Result<(), StepError> {
        if is_oldest && self.is_whole(connection, intake, at, size).await? {
            return Ok(());
        }
        second::complete(self, connection, intake, at, is_oldest).await
    }

    /// Whether the oldest second of the window is whole, of which `size` events came. One event more
    /// is requested, of any time: an older one in the answer proves it. If the upstream has nothing
    /// older at all, a page that is smaller than others counts as whole.
    async fn is_whole(
        &mut self,
        connection: &Connection,
        intake: &mut Intake,
        at: i64,
        size: usize,
    ) -> Result<bool, StepError> {
        if size < 2 && self.asked.cap.is_none_or(|cap| cap > 1) {
            return Ok(true);
        }
        let limit = u64::try_from(size).unwrap_or(u64::MAX).saturating_add(1);
        let asked = Asked { since: 0, limit, lane: None, ..self.asked };
        let Some(found) = second::part(self, connection, intake, asked, at).await? else {
            return Ok(false);
        };
        if found.claims().any(|(_, older)| older < at) {
            return Ok(true);
        }
        Ok(found.size() <= size && self.is_small(size) && !self.has_older(connection, at).await?)
    }

    /// Whether the upstream has an event that is older than a second.
    pub(super) async fn has_older(
        &self,
        connection: &Connection,
        at: i64,
    ) -> Result<bool, StepError> {
        let asked = Asked { since: 0, limit: 1, lane: None, ..self.asked };
        Ok(page(connection, asked, at - 1, None).await?.size() > 0)
    }

    /// Whether a page of this size was not cut, as far as the sizes of pages tell.
    pub(super) fn is_small(&self, size: usize) -> bool {
        size < self.largest.max(SMALL) && self.asked.cap.is_none_or(|cap| size < cap)
    }

    /// Ends the walk, or begins it again, once, if events came after the end of their page.
    async fn finish(&mut self, connection: &Connection) -> Result<Option<i64>, StepError> {
        let mut late = Vec::new();
        if !self.has_events {
            // What came late for the only page has come before the end of this one.
            let found = page(connection, Asked { limit: 1, ..self.asked }, self.end, None).await?;
            let before = self.asked.now - LATE_AGE;
            late.extend(found.claims().filter(|(_, at)| *at < before).map(|(id, _)| id));
        }
        if let Some(lane) = self.asked.lane {
            late.extend(connection.take_late(lane, self.asked.since, self.end));
        }
        match self.late.take() {
            Some(before) if late.iter().any(|id| before.contains(id)) => Err(StepError::Protocol(
                "events come after the end of the page (EOSE) that they belong to".to_owned(),
            )),
            Some(_) => {
                if !late.is_empty() {
                    self.gaps.push(self.late_gap());
                }
                Ok(None)
            }
            None if late.is_empty() => Ok(None),
            None => {
                self.begin_again(late);
                Ok(Some(self.end))
            }
        }
    }

    /// Whether the walk has begun again. What it has not walked again is a gap.
    pub(crate) fn is_repeated(&self) -> bool {
        self.late.is_some()
    }

    /// The window, for which events came after the end of their page.
    pub(crate) fn late_gap(&self) -> Gap {
        Gap::span(self.asked.since, self.end, LATE)
    }

    fn begin_again(&mut self, late: Vec<EventId>) {
        let again = Walk::new(Asked { until: Some(self.end), ..self.asked });
        let (gaps, facts) = (std::mem::take(&mut self.gaps), std::mem::take(&mut self.facts));
        let violations = self.violations;
        *self = Walk { gaps, facts, violations, late: Some(late), ..again };
    }
}
