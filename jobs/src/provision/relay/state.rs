//! How far a relay's current generation has come. The rule is here twice, for rows in memory and for
//! the database, and nowhere else.

use serde::Serialize;

/// The progress of a relay's current generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SyncState {
    /// zooid has the wanted state.
    Synced,
    /// No attempt was made yet.
    Pending,
    /// An attempt failed and a retry is scheduled. Programs read it as `retrying`, as it was first called; people
    /// read another word, because a job that waits for its retry is *retrying* too.
    #[serde(rename = "retrying")]
    Failing,
    /// The last failure was permanent, or no retry is left.
    GaveUp,
}

impl SyncState {
    pub(crate) fn of(synced: bool, has_given_up: bool, attempts: i32) -> Self {
        match (synced, has_given_up, attempts) {
            (true, ..) => Self::Synced,
            (false, true, _) => Self::GaveUp,
            (false, false, 0) => Self::Pending,
            (false, false, _) => Self::Failing,
        }
    }

    /// Returns the name that programs read, and that filters accept.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Pending => "pending",
            Self::Failing => "retrying",
            Self::GaveUp => "gave_up",
        }
    }

    /// Returns the word that people read.
    pub fn word(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Pending => "pending",
            Self::Failing => "failing",
            Self::GaveUp => "gave up",
        }
    }

    /// Every state.
    pub const ALL: [Self; 4] = [Self::Synced, Self::Pending, Self::Failing, Self::GaveUp];

    /// Reads a state's name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// The condition on a relay's row that [`of`](Self::of) computes, in the form that the partial
    /// indexes have.
    pub(super) fn condition(self) -> &'static str {
        match self {
            Self::Synced => "synced",
            Self::Pending => "not synced and exhausted_at is null and attempts = 0",
            Self::Failing => "not synced and attempts > 0 and exhausted_at is null",
            Self::GaveUp => "exhausted_at is not null",
        }
    }
}
