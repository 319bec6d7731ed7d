//! A walk over matching jobs, page by page.

use sqlx::PgPool;

use super::{
    JobFilter, JobState, JobSummary,
    list::{self, Cursor, Page, arms::Reading},
};

/// The jobs of one page. A page is steered in one transaction.
pub(crate) const PAGE: usize = 500;

/// A walk over the matching jobs in some states. The jobs that are due last or ended last come first, so a job
/// that is retried and fails again during the walk lies behind it, and the walk ends.
pub(crate) struct Walk {
    filter: JobFilter,
    /// The states that are still to be walked, the next one last.
    states: Vec<JobState>,
    /// Where the next page begins; `None` at the start of a state.
    place: Option<Cursor>,
}

impl Walk {
    /// The filter's own state, if it has one, narrows `states`, which are walked in this order.
    pub(crate) fn new(filter: &JobFilter, states: &[JobState]) -> Self {
        let states =
            states.iter().rev().copied().filter(|state| filter.may_match(*state)).collect();
        Self { filter: filter.clone(), states, place: None }
    }

    /// Returns the next page; `None` at the end. Every job is looked at, also for an error that no index serves.
    pub(crate) async fn next(
        &mut self,
        db: &PgPool,
    ) -> Result<Option<Vec<JobSummary>>, sqlx::Error> {
        while let Some(state) = self.states.last() {
            self.filter.state = Some(*state);
            let page = self.page(db, *state).await?;
            self.place = page.last().map(JobSummary::cursor);
            if self.place.is_some() {
                return Ok(Some(page));
            }
            self.states.pop();
        }
        Ok(None)
    }

    async fn page(&self, db: &PgPool, state: JobState) -> Result<Vec<JobSummary>, sqlx::Error> {
        let queues = &list::queues(db, &self.filter).await?;
        let page = &match (&self.place, state.is_ended()) {
            (Some(place), true) => Page::After(place.clone()),
            (None, true) => Page::First,
            (place, false) => Page::Before(place.clone().unwrap_or_else(Cursor::end_of_unfinished)),
        };
        let limit = i64::try_from(PAGE).unwrap_or(i64::MAX);
        Reading { queues, filter: &self.filter, page, limit, scanned: None }.jobs(db).await
    }
}
