//! Jobs as an operator selects them, on the page and by a command, and how both speak of what is done to them.

use std::time::Duration;

use sqlx::PgPool;
use tender_jobs::{
    queue::{COUNT_CAP, JobFilter, JobState, SEARCHED, WithError},
    steer::{Bulk, Verb},
    subject::{self, MOST},
};

use crate::{search, words::counted};

/// What was typed. `None` and an empty text match every job.
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
        let (host, tenant) = (text(self.host.as_deref()), text(self.tenant.as_deref()));
        let tenant = tenant.as_deref().and_then(search::normal);
        let found = if host.is_none() && tenant.is_none() {
            None
        } else {
            let (host, tenant) = (host.unwrap_or_default(), tenant.unwrap_or_default());
            Some(subject::find(db, &host, &tenant).await?)
        };
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
}

impl Selected {
    /// Says what a list may lack.
    pub(crate) fn limits(&self) -> Vec<String> {
        let is_common = self.filter.error.as_ref().is_some_and(WithError::is_common);
        let mut limits = Vec::new();
        if self.is_cut {
            limits.push(format!(
                "More than {MOST} relays or upstreams match; the jobs of the first {MOST} are listed. Give more of the host."
            ));
        }
        if is_common {
            limits.push(format!(
                "More than {SEARCHED} failed jobs have this error, or it is too short for the index. Of each queue and \
                 state, {SEARCHED} jobs are searched, the first of the list. Give more of the error, or choose an age \
                 to search others."
            ));
        } else if self.filter.is_open {
            limits.push(format!(
                "Of each queue, the last {SEARCHED} killed jobs that no operator has seen are searched. Choose an age \
                 to search others."
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

/// The question before something is done to `jobs` jobs, a count that stops at [`COUNT_CAP`].
pub(crate) fn question(verb: Verb, jobs: i64) -> String {
    let (noun, more) = (counted(jobs, "job"), if jobs >= COUNT_CAP { " or more" } else { "" });
    match verb {
        Verb::Retry => format!(
            "Retry {noun}{more}, killed or retrying? A job of a relay that is in step is left alone; the others are due at once."
        ),
        Verb::Cancel => format!(
            "Cancel {noun}{more}, waiting or retrying? They are killed. Their relays give up until they change or a sync is requested."
        ),
        Verb::Delete => format!(
            "Delete {noun}{more}, done or killed, for good? What relays and upstreams still need stays with them and gets new jobs."
        ),
    }
}

/// What was done.
pub(crate) fn done(verb: Verb, bulk: Bulk) -> String {
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
        assert_eq!(done(Verb::Delete, bulk), words);
        assert_eq!(done(Verb::Retry, Bulk { done: 2, ..Bulk::default() }), "2 jobs requeued.");
    }

    #[test]
    fn a_selection_is_named_by_its_filters() {
        let filters = [("queue", "prune".to_owned()), ("error", "no disk".to_owned())];
        assert_eq!(described(filters), "queue prune, error no disk");
        assert_eq!(described([]), "all jobs");
    }
}
