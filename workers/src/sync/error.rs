//! What keeps a step of a sync from its end, named for the reaction that it asks for.

use std::time::Duration;

/// Why a step did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The relay cannot be reached, or was lost: tried again by the job's attempts.
    #[error("{0}")]
    Connection(String),
    /// It did not answer in time: likewise.
    #[error("{0}")]
    Silent(String),
    /// It asks for patience: likewise.
    #[error("the relay limits our rate: {0}")]
    RateLimited(String),
    /// It wants to know who we are, and that did not come off.
    #[error("{0}")]
    Auth(String),
    /// It refuses what we ask for.
    #[error("the relay refuses: {0}")]
    Refused(String),
    /// It breaks the protocol.
    #[error("the relay breaks the protocol: {0}")]
    Protocol(String),
    /// Somebody else has the lane: nothing more may be written.
    #[error("the lane is somebody else's")]
    LeaseLost,
    /// The upstream was disabled, or does not want this any more.
    #[error("the upstream does not want this any more")]
    Unwanted,
    /// This process stops.
    #[error("the process stops")]
    Stopping,
    /// The job's time is over: what is done stays, the next one goes on.
    #[error("the job's time is over")]
    TimeOver,
    /// Our own database.
    #[error("the database did not answer: {0}")]
    Database(#[from] sqlx::Error),
}

impl StepError {
    /// Whether it may go away by itself within minutes.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connection(_) | Self::Silent(_) | Self::RateLimited(_) | Self::Database(_)
        )
    }

    /// From the reason of a `CLOSED`, by its prefix. Source: NIP-01.
    pub(crate) fn of_closed(reason: &str) -> Self {
        match reason.split_once(':').map_or("", |(prefix, _)| prefix) {
            "rate-limited" => Self::RateLimited(reason.to_owned()),
            "auth-required" => Self::Auth(reason.to_owned()),
            "error" => Self::Connection(format!("the relay closed the subscription: {reason}")),
            _ => Self::Refused(reason.to_owned()),
        }
    }
}

/// Wait before the next attempt, after attempt `n` from 1: n⁴ + 2 seconds, with up to 15 % more.
pub fn delay(attempt: i32, jitter: f64) -> Duration {
    let attempt = f64::from(attempt.clamp(1, 20));
    Duration::from_secs_f64((attempt.powi(4) + 2.0) * 0.15f64.mul_add(jitter.clamp(0.0, 1.0), 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_with_the_fourth_power() {
        let waits = [1, 2, 3, 4].map(|attempt| delay(attempt, 0.0).as_secs());
        assert_eq!(waits, [3, 18, 83, 258]);
        assert!(delay(4, 1.0) <= Duration::from_secs(297));
    }

    #[test]
    fn the_prefix_of_a_closed_says_what_to_do() {
        assert!(matches!(StepError::of_closed("rate-limited: slow"), StepError::RateLimited(_)));
        assert!(matches!(StepError::of_closed("auth-required: who"), StepError::Auth(_)));
        assert!(matches!(StepError::of_closed("error: disk"), StepError::Connection(_)));
        assert!(matches!(StepError::of_closed("restricted: no"), StepError::Refused(_)));
        assert!(matches!(StepError::of_closed("bye"), StepError::Refused(_)));
    }
}
