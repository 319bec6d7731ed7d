//! An item that needs an operator's attention, and the action that can help.

use chrono::{DateTime, Utc};
use serde::Serialize;
use tender_jobs::console::snooze::Snooze;

/// An item that needs an operator's attention.
#[derive(Debug, Clone, Serialize)]
pub struct Item {
    /// Names the item for as long as its cause lasts, such as `paused:sync-relay`.
    pub key: String,
    /// Whether work stands still because of it.
    pub is_grave: bool,
    /// What is wrong, with its count, without a full stop.
    pub headline: String,
    /// How many things the headline counts, at least 1.
    pub size: i64,
    /// Since when.
    pub since: Option<DateTime<Utc>>,
    /// The words of the failure; empty without any.
    pub error: String,
    /// A sentence on what helps, if no action here does; else empty.
    pub advice: String,
    /// The page that shows exactly what the headline counts, below the dashboard's path; empty if none does.
    pub page: String,
    /// The command that shows or solves it; empty if none does.
    pub command: String,
    /// The action that can help.
    #[serde(skip)]
    pub remedy: Option<Remedy>,
    /// The snooze, if an operator has put the item aside and it has not ended.
    pub snooze: Option<Snooze>,
}

/// An action that can help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remedy {
    /// Probe this zooid instance.
    Probe(String),
    /// Resume this queue.
    Resume(String),
    /// Request a sync of the relays that gave up for this cause.
    SyncCause(String),
    /// Enqueue a job for every pending relay that has none.
    Reconcile,
    /// Retry the killed jobs of this queue.
    RetryKilled(String),
}

impl Item {
    pub(super) fn new(key: String, headline: String) -> Self {
        Self {
            key,
            headline,
            is_grave: false,
            size: 1,
            since: None,
            error: String::new(),
            advice: String::new(),
            page: String::new(),
            command: String::new(),
            remedy: None,
            snooze: None,
        }
    }

    /// An item for tests.
    #[cfg(test)]
    pub(crate) fn named(headline: &str) -> Self {
        Self::new(headline.to_owned(), headline.to_owned())
    }

    pub(super) fn grave(self) -> Self {
        Self { is_grave: true, ..self }
    }

    pub(super) fn size(self, size: i64) -> Self {
        Self { size, ..self }
    }

    /// Whether the item is put aside: it is snoozed, and has neither grown nor begun anew since.
    pub(super) fn is_put_aside(&self) -> bool {
        self.snooze.is_some() && self.grown_from().is_none() && !self.began_anew()
    }

    /// Whether all that the item counts began after the snooze: it is another failure of the same kind.
    pub fn began_anew(&self) -> bool {
        let snooze = self.snooze.as_ref().zip(self.since);
        snooze.is_some_and(|(snooze, since)| since > snooze.created_at)
    }

    /// Returns what the item counted when it was snoozed, if it counts more now and is listed again.
    pub fn grown_from(&self) -> Option<i64> {
        self.snooze.as_ref().map(|snooze| snooze.size).filter(|size| self.size > *size)
    }

    pub(super) fn since(self, since: Option<DateTime<Utc>>) -> Self {
        Self { since, ..self }
    }

    pub(super) fn error(self, error: &str) -> Self {
        Self { error: error.to_owned(), ..self }
    }

    pub(super) fn advice(self, advice: &str) -> Self {
        Self { advice: advice.to_owned(), ..self }
    }

    pub(super) fn page(self, path: &str, fields: &[(&str, &str)]) -> Self {
        let query = serde_urlencoded::to_string(fields).unwrap_or_default();
        let separator = if query.is_empty() { "" } else { "?" };
        Self { page: format!("{path}{separator}{query}"), ..self }
    }

    pub(super) fn command(self, command: String) -> Self {
        Self { command, ..self }
    }

    pub(super) fn remedy(self, remedy: Remedy) -> Self {
        Self { remedy: Some(remedy), ..self }
    }
}
