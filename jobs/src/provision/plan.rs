//! The outcome table: what becomes of a job whose attempt failed. A decision only; [`super::fail()`]
//! writes it.

use std::time::Duration;

use super::{Failure, backoff::Backoff, relay::FailureKind};
use crate::queue::Job;

/// What to write on the row of a failed job.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Plan {
    /// Retry on the schedule.
    Retry { attempts: i32, delay: Duration },
    /// Kill the job: the failure is permanent, or the schedule is used up.
    GiveUp { attempts: i32 },
    /// End the job: a newer one waits for the relay, or the relay's newer state was cancelled.
    Supersede { attempts: i32 },
    /// Start over now: the relay changed during the attempt, and its own job is missing.
    StartOver,
    /// Wait until the instance may be asked again; no attempt is spent.
    Hold { wait: Duration, is_current: bool },
}

impl Plan {
    /// `is_superseded`: a newer job waits for the relay, or the relay's newer state was cancelled.
    /// `is_current`: the relay has not changed since the attempt began. `open_for`: the instance's
    /// breaker is open, and its next probe comes after this time.
    pub(super) fn new(
        job: &Job,
        failure: &Failure,
        backoff: &Backoff,
        is_current: bool,
        is_superseded: bool,
        open_for: Option<Duration>,
    ) -> Self {
        let last = i32::try_from(backoff.max_attempts()).unwrap_or(i32::MAX);
        let attempts = job.place().max(job.crashes).min(last);
        if is_superseded {
            return Self::Supersede { attempts };
        }
        if let Some(wait) = open_for {
            return Self::Hold { wait, is_current };
        }
        if !is_current {
            return Self::StartOver;
        }
        let delay = match failure.kind {
            FailureKind::Permanent => None,
            FailureKind::Transient if job.crashes >= last => None,
            FailureKind::Transient => {
                backoff.delay(u32::try_from(job.place()).unwrap_or(1), failure.retry_after)
            }
        };
        delay.map_or(Self::GiveUp { attempts }, |delay| Self::Retry { attempts, delay })
    }

    /// The attempts to store on the relay; `None` leaves the relay as it is.
    pub(super) fn attempts(self) -> Option<i32> {
        match self {
            Self::Retry { attempts, .. }
            | Self::GiveUp { attempts }
            | Self::Supersede { attempts } => Some(attempts),
            Self::StartOver => Some(0),
            Self::Hold { .. } => None,
        }
    }
}
