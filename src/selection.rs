//! Jobs as an operator selects them, on the page and by a command, and how both speak of what is done to them.

use std::time::Duration;

use sqlx::PgPool;
use tender_jobs::{
    queue::{About, COUNT_CAP, JobFilter, JobState, SEARCHED, WithError},
    steer::{Bulk, Verb},
    subject::{self, Found, MOST},
};

use crate::{search, words::counted};

/// What was typed. `None` matches every job; a text that is empty, or of which nothing is left to search for, matches
/// none, so that a filter that was given never becomes all jobs.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// The start of a relay's host, or a part of an upstream's address.
    pub(crate) host: Option<String>,
    /// A tenant's public key, in hex or as npub.
    pub(crate) tenant: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) state: Option<Wanted>,
    /// A part of the last error.
    pub(crate) error: Option<String>,
    /// The greatest time since the job ended, or was due.
    pub(crate) younger: Option<Duration>,
    /// The least such time.
    pub(crate) older: Option<Duration>,
}

/// The jobs of a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    In(JobState),
    /// Killed jobs that need attention.
    Open,
}

/// What a selection means now.
pub(crate) struct Selected {
    pub(crate) filter: JobFilter,
    /// Whether only some of the relays or upstreams that match are searched.
    pub(crate) is_cut: bool,
}

impl Selection {
    /// Finds what the selection names.
    pub(crate) async fn find(&self, db: &PgPool) -> Result<Selected, sqlx::Error> {
        let found = self.subjects(db).await?;
        let error = match text(self.error.as_deref()) {
            Some(text) => Some(WithError::find(db, &text).await?),
            None => None,
        };
        let is_cut = found.as_ref().is_some_and(|found| found.is_cut);
        let filter = JobFilter {
            queue: text(self.queue.as_deref()),
            state: self.state.map(|wanted| match wanted {
                Wanted::In(state) => state,
                Wanted::Open => JobState::Killed,
            }),
            error,
            is_open: self.state == Some(Wanted::Open),
            about: found.map(|found| found.about),
            younger: self.younger,
            older: self.older,
        };
        Ok(Selected { filter, is_cut })
    }

    /// Finds what the jobs are about; `None` if they may be about anything.
    async fn subjects(&self, db: &PgPool) -> Result<Option<Found>, sqlx::Error> {
        if self.is_void() {
            return Ok(Some(Found { about: About::default(), is_cut: false }));
        }
        let (host, tenant) = (text(self.host.as_deref()), text(self.tenant.as_deref()));
        let tenant = tenant.as_deref().and_then(search::normal);
        if host.is_none() && tenant.is_none() {
            return Ok(None);
        }
        let (host, tenant) = (host.unwrap_or_default(), tenant.unwrap_or_default());
        subject::find(db, &host, &tenant).await.map(Some)
    }

    /// Whether a filter was given of which nothing is left to search for.
    fn is_void(&self) -> bool {
        let mut names = [&self.host, &self.tenant].into_iter().flatten();
        let mut texts = [&self.queue, &self.error].into_iter().flatten();
        names.any(|typed| text(Some(typed)).as_deref().and_then(search::normal).is_none())
            || texts.any(|typed| text(Some(typed)).is_none())
    }
}

impl Selected {
    /// Whether a list searches only some of the jobs for the error.
    pub(crate) fn is_partial(&self) -> bool {
        self.filter.error.as_ref().is_some_and(WithError::is_common)
    }

    /// Says what a list may lack.
    pub(crate) fn limits(&self) -> Vec<String> {
        let searched = counted(self.filter.searched(), "job");
        let mut limits = Vec::new();
        if self.is_cut {
            limits.push(format!(
                "More than {MOST} relays or upstreams match; the jobs of the first {MOST} are listed. Give more of the host."
            ));
        }
        if self.is_partial() {
            limits.push(format!(
                "More than {SEARCHED} failed jobs have this error, or it is too short for the index. Of each queue and \
                 state, {searched} are searched, the first of the list. Give more of the error, or choose an age \
                 to search others."
            ));
        } else if self.filter.is_open {
            limits.push(format!(
                "Of each queue, the last {searched} that were killed and that no operator has seen are searched. \
                 Choose an age to search others."
            ));
        }
        limits
    }
}

/// PostgreSQL does not accept NUL in text.
fn text(typed: Option<&str>) -> Option<String> {
    let text = typed.unwrap_or_default().trim().replace('\0', "");
    (!text.is_empty()).then_some(text)
}

/// Returns how the record of actions and questions name the jobs that match filters.
pub(crate) fn described<'a>(filters: impl IntoIterator<Item = (&'a str, String)>) -> String {
    let filters = filters.into_iter().map(|(name, value)| format!("{name} {value}"));
    let filters: Vec<String> = filters.collect();
    if filters.is_empty() { "all jobs".to_owned() } else { filters.join(", ") }
}

/// The question before something is done to `jobs` jobs, a count that stops at [`COUNT_CAP`]. `is_cut`: only some of
/// the relays or upstreams that match are reached.
pub(crate) fn question(verb: Verb, jobs: i64, is_cut: bool) -> String {
    let least = if jobs >= COUNT_CAP { "at least " } else { "" };
    let noun = format!("{least}{}", counted(jobs, "job"));
    let question = match verb {
        Verb::Retry => format!(
            "Retry {noun}, killed or retrying? A job of a relay that is in step is left alone; the others are due at once."
        ),
        Verb::Cancel => format!(
            "Cancel {noun}, waiting or retrying? They are killed. Their relays give up until they change or a sync is requested."
        ),
        Verb::Delete => format!(
            "Delete {noun}, done or killed, for good? What relays and upstreams still need stays with them and gets new jobs."
        ),
    };
    if is_cut { format!("{question} {}", cut()) } else { question }
}

/// A repetition finds the same relays and upstreams first, whatever was done to their jobs.
fn cut() -> String {
    format!(
        "More than {MOST} relays or upstreams match, and only the first {MOST} are reached, each time: give more of the \
         host to reach the others."
    )
}

/// What was done. `is_cut` as in [`question`].
pub(crate) fn done(verb: Verb, bulk: Bulk, is_cut: bool) -> String {
    let done = did(verb, bulk);
    if is_cut { format!("{done} {}", cut()) } else { done }
}

fn did(verb: Verb, bulk: Bulk) -> String {
    let count = |jobs: usize| counted(i64::try_from(jobs).unwrap_or(i64::MAX), "job");
    let did = match verb {
        Verb::Retry => "requeued",
        Verb::Cancel => "cancelled",
        Verb::Delete => "deleted",
    };
    let done = format!("{} {did}", count(bulk.done));
    if !bulk.goes_on {
        return format!("{done}.");
    }
    format!("{done}; {} looked at, and more match: do it again.", count(bulk.seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_said() {
        let bulk = Bulk { done: 1, seen: 500, goes_on: true };
        let words = "1 job deleted; 500 jobs looked at, and more match: do it again.";
        assert_eq!(done(Verb::Delete, bulk, false), words);
        let bulk = Bulk { done: 2, ..Bulk::default() };
        assert_eq!(done(Verb::Retry, bulk, false), "2 jobs requeued.");
        let cut = done(Verb::Retry, bulk, true);
        assert!(
            cut.starts_with("2 jobs requeued. More than 200") && cut.contains("more of the host")
        );
    }

    #[test]
    fn a_selection_is_named_by_its_filters() {
        let filters = [("queue", "prune".to_owned()), ("error", "no disk".to_owned())];
        assert_eq!(described(filters), "queue prune, error no disk");
        assert_eq!(described([]), "all jobs");
    }
}
