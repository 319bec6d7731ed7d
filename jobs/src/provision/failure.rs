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
    /// There was no answer, or a 5xx.
    Outage,
    /// The instance was not called.
    NotCalled,
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
}

impl Failure {
    /// A failure without an answer; `message` is put on one line.
    pub fn new(kind: FailureKind, message: &str) -> Self {
        let line = one_line(message);
        let message = if line.is_empty() { "failed without a message".to_owned() } else { line };
        Self { kind, message, status: None, retry_after: None, reached: Reached::NotCalled }
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
