//! The states of a job.

use serde::Serialize;

/// A job's state in our words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum JobState {
    /// Waits for its turn.
    Waiting,
    /// Failed, and waits for its next attempt.
    Retrying,
    /// Fetched by a worker and not started.
    Queued,
    /// Started by a worker.
    Running,
    /// Ended without success.
    Killed,
    /// Ended with success, or was not needed any more.
    Done,
}

impl JobState {
    /// Every state, in the order in which pages and commands list them.
    pub const ALL: [Self; 6] =
        [Self::Waiting, Self::Retrying, Self::Queued, Self::Running, Self::Killed, Self::Done];

    /// Returns the name that is shown and accepted as a filter.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Retrying => "retrying",
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Killed => "killed",
            Self::Done => "done",
        }
    }

    /// Whether a job in this state does not run again by itself.
    pub fn is_ended(self) -> bool {
        matches!(self, Self::Killed | Self::Done)
    }

    /// Returns the status of rows in this state.
    pub(super) fn status(self) -> &'static str {
        match self {
            Self::Waiting => "Pending",
            Self::Retrying => "Failed",
            Self::Queued => "Queued",
            Self::Running => "Running",
            Self::Killed => "Killed",
            Self::Done => "Done",
        }
    }
}

impl From<String> for JobState {
    /// From the status of a row. A status that Tender does not write counts as killed, because no
    /// worker fetches such a row.
    fn from(status: String) -> Self {
        let known = Self::ALL.into_iter().find(|state| state.status() == status);
        known.unwrap_or(Self::Killed)
    }
}
