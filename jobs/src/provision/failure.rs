//! A failed attempt, and what follows from it.

use std::time::Duration;

use chrono::{DateTime, Utc};

use super::relay::FailureKind;
use crate::queue::one_line;

/// What a failed attempt proves about the instance that it called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reached {
    /// The instance answered with a status below 500.
    Answered,
    /// The instance refused our key, in its own words. No call can succeed until the operator has
    /// changed its configuration or ours.
    RefusedKey,
    /// The instance answered with a 5xx, or something else answered in its place.
    Outage,
    /// Nothing was sent.
    Down,
    /// The request was sent and its answer did not arrive, or is unusable. The instance may have
    /// applied the request, and may still apply it.
    Unanswered {
        /// Whether the answer did not arrive in time.
        is_timeout: bool,
    },
    /// The instance was not called.
    NotCalled,
}

impl Reached {
    /// Whether the failure counts towards the instance's breaker.
    pub fn is_outage(self) -> bool {
        !matches!(self, Self::Answered | Self::NotCalled)
    }

    /// Whether the instance may still apply the request.
    pub(super) fn may_land(self) -> bool {
        matches!(self, Self::Unanswered { .. })
    }
}

/// zooid has the wanted host for another relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// The wanted host.
    pub host: String,
    /// Another relay of ours is about to leave it, and the retry is due as soon as it has.
    pub is_awaited: bool,
    /// The attempt moved the relay to a temporary host, which frees its old hosts for others.
    pub has_moved_away: bool,
}

/// Why an attempt failed.
#[derive(Debug, Clone)]
pub struct Failure {
    /// Whether a retry may succeed.
    pub kind: FailureKind,
    /// One line for people, never empty.
    pub message: String,
    /// The HTTP status, if zooid answered.
    pub status: Option<u16>,
    /// The wait that zooid asked for in `Retry-After`.
    pub retry_after: Option<Duration>,
    /// What the failure proves about the instance.
    pub reached: Reached,
    /// The relay waits for a host.
    pub conflict: Option<Conflict>,
}

impl Failure {
    /// A failure without a call; `message` is put on one line.
    pub fn new(kind: FailureKind, message: &str) -> Self {
        let line = one_line(message);
        let message = if line.is_empty() { "failed without a message".to_owned() } else { line };
        let (status, retry_after, conflict) = (None, None, None);
        Self { kind, message, status, retry_after, reached: Reached::NotCalled, conflict }
    }

    /// Whether the instance answered, so that it is not out.
    pub fn was_answered(&self) -> bool {
        self.reached == Reached::Answered
    }

    /// Whether the instance had more calls than it could answer.
    pub(super) fn is_overload(&self) -> bool {
        self.reached == Reached::Unanswered { is_timeout: true }
            || matches!(self.status, Some(429 | 503))
    }
}

/// What happens after a failed attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The job is retried at this time.
    RetryAt(DateTime<Utc>),
    /// The job was killed; the relay has given up.
    GaveUp,
    /// The job ended, because a newer change has its own job.
    Superseded,
    /// The instance is out: the job waits until this time, or until the breaker closes. No attempt is
    /// spent.
    Held(DateTime<Utc>),
}

impl Verdict {
    /// The time of the next attempt, if the schedule sets one.
    pub(super) fn retry_at(self) -> Option<DateTime<Utc>> {
        match self {
            Self::RetryAt(at) => Some(at),
            Self::GaveUp | Self::Superseded | Self::Held(_) => None,
        }
    }
}
