//! Families of items, and why and how events come.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What one filter covers: the items of one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// Announcements and grasp lists of the whole relay; its only item is `*`.
    Announcements,
    /// States (kind 30618), by identifier.
    State,
    /// Events that name a repository by `a`, `A` or `q`, by address.
    Address,
    /// Events that name a root by `e`, `E` or `q`, by event id.
    Root,
    /// Deletions (kind 5), by author.
    Deletion,
}

impl Family {
    /// Every family, in the order in which they are fetched.
    pub const ALL: [Self; 5] =
        [Self::Announcements, Self::State, Self::Address, Self::Root, Self::Deletion];

    /// The name in rows, metrics and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Announcements => "announcements",
            Self::State => "state",
            Self::Address => "address",
            Self::Root => "root",
            Self::Deletion => "deletion",
        }
    }

    /// Returns the family with this name; `None` if there is none.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.as_str() == text)
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a batch is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Purpose {
    /// Its items are missing.
    Missing,
    /// The relay was out of reach for longer than 15 minutes: everything confirmed is verified.
    Fresh,
    /// The relay was out of reach for less: what was published meanwhile is fetched.
    Reconnect,
    /// The daily verification.
    Daily,
    /// A filter beyond the limit of open subscriptions, polled in turn.
    Rotation,
}

impl Purpose {
    /// The name in rows, metrics and pages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Fresh => "fresh",
            Self::Reconnect => "reconnect",
            Self::Daily => "daily",
            Self::Rotation => "rotation",
        }
    }
}

/// How an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The service's own relay.
    Own,
    /// A live subscription to a followed relay.
    Live,
    /// A batch.
    Batch(Purpose),
    /// The store: the mirror had stored the event for another reason.
    Store,
    /// The event was parked, and what it waited for came.
    Released,
}

impl Source {
    /// Every source.
    pub const ALL: [Self; 9] = [
        Self::Own,
        Self::Live,
        Self::Batch(Purpose::Missing),
        Self::Batch(Purpose::Fresh),
        Self::Batch(Purpose::Reconnect),
        Self::Batch(Purpose::Daily),
        Self::Batch(Purpose::Rotation),
        Self::Store,
        Self::Released,
    ];

    /// The name in rows and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Own => "own",
            Self::Live => "live",
            Self::Batch(purpose) => purpose.as_str(),
            Self::Store => "store",
            Self::Released => "released",
        }
    }
}
