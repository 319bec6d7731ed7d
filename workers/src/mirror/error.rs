//! Errors of a lane's work. The variants differ in the reaction that they need.

use std::time::Duration;

/// A fault of an upstream that does not pass by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The name does not exist.
    Dns,
    /// The certificate or the handshake is not valid.
    Tls,
    /// The host does not speak WebSocket.
    Protocol,
    /// The host has no public address.
    Private,
}

/// A step of a lane's work failed or ended early.
#[derive(Debug, thiserror::Error)]
pub enum StepError {
    /// The upstream cannot be reached or the connection was lost. The job is retried.
    #[error("{0}")]
    Connection(String),
    /// The upstream cannot be reached, for a reason that does not pass by itself. The job is retried like
    /// after [`Connection`](Self::Connection).
    #[error("{reason}")]
    Unreachable {
        /// The kind of the fault.
        fault: Fault,
        /// The error, for people.
        reason: String,
    },
    /// The upstream closed a subscription because of an error of its own. The job is retried.
    #[error("the relay closed the subscription: {0}")]
    Closed(String),
    /// The upstream did not answer in time. The job is retried.
    #[error("{0}")]
    Silent(String),
    /// The upstream limits our request rate. The job is retried.
    #[error("the upstream limits our rate: {0}")]
    RateLimited(String),
    /// The upstream limits our rate, and said when it accepts us again. The job is retried then.
    #[error("the upstream limits our rate: {reason}")]
    RetryAfter {
        /// The refusal, for people.
        reason: String,
        /// The wait that the upstream asked for, at most a day.
        after: Duration,
    },
    /// All connections of this process are in use. The job is requeued without an attempt spent.
    #[error("all connections are in use; raise max_concurrent_connections or add a process")]
    NoRoom,
    /// The upstream took none of the events that were sent. The job is retried.
    #[error("the upstream took none of the events that were sent: {0}")]
    TookNone(String),
    /// The upstream requires authentication (NIP-42), and authentication failed.
    #[error("{0}")]
    Auth(String),
    /// The upstream refused the request.
    #[error("the upstream refused: {0}")]
    Refused(String),
    /// The upstream violated the protocol.
    #[error("the upstream violated the protocol: {0}")]
    Protocol(String),
    /// Another holder has the lane. Nothing more may be written.
    #[error("lease lost: another holder has the lane")]
    LeaseLost,
    /// The work panicked: a bug of ours. The text names the panic.
    #[error(
        "our worker failed ({0}); this is a bug of Tender, not of the upstream: report it with the log of the worker"
    )]
    Panicked(String),
    /// Our workers died in several attempts, without progress in between.
    #[error(
        "our worker died in {deaths} attempts without progress (killed, out of memory, or crashed); the \
         upstream is not the cause: read the logs of the processes that `tender workers` lists, and the \
         kernel's log"
    )]
    Died {
        /// How often.
        deaths: i32,
    },
    /// The upstream is disabled, or its settings exclude this work now.
    #[error("the upstream is disabled, or its settings exclude this work")]
    Unwanted,
    /// This process is stopping. The job is requeued.
    #[error("the process is stopping")]
    Stopping,
    /// The job reached our time limit. The finished work is kept, and the lane's next job continues.
    #[error("the job reached our time limit of 100 s")]
    TimeOver,
    /// The job did nothing that the next one would not do again. The job is retried.
    #[error("the job made no progress: {0}")]
    NoProgress(String),
    /// A statement on our database failed. The job is retried.
    #[error("our database refused a statement or is unreachable: {0}")]
    Database(#[from] sqlx::Error),
}

impl StepError {
    /// Whether a retry within minutes may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            Self::Connection(_)
                | Self::Unreachable { .. }
                | Self::Closed(_)
                | Self::Silent(_)
                | Self::RateLimited(_)
                | Self::TookNone(_)
                | Self::NoProgress(_)
                | Self::RetryAfter { .. }
                | Self::NoRoom
                | Self::TimeOver
                | Self::Database(_)
        )
    }

    /// Whether the upstream may answer a request for a shorter window.
    pub(crate) fn may_concern_length(&self) -> bool {
        matches!(self, Self::Closed(_) | Self::Silent(_) | Self::Protocol(_))
    }

    /// Returns the shortest wait before a retry, if the upstream asked for one.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RetryAfter { after, .. } => Some(*after),
            _ => None,
        }
    }

    /// Returns the fault that does not pass by itself; `None` for other errors.
    pub fn fault(&self) -> Option<Fault> {
        match self {
            Self::Unreachable { fault, .. } => Some(*fault),
            _ => None,
        }
    }

    /// Returns the error for the reason of a `CLOSED`, by its prefix. Source: NIP-01.
    pub(crate) fn of_closed(reason: &str) -> Self {
        match reason.split_once(':').map_or("", |(prefix, _)| prefix) {
            "rate-limited" => Self::RateLimited(reason.to_owned()),
            "auth-required" => Self::Auth(reason.to_owned()),
            "error" => Self::Closed(reason.to_owned()),
            _ => Self::Refused(reason.to_owned()),
        }
    }
}

/// Returns the delay after the failed attempt `n`, counted from 1: n⁴ + 2 seconds, plus up to 15 %.
/// `jitter` from 0 to 1 sets the added part.
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
    fn our_own_failures_do_not_blame_the_upstream() {
        for (error, words) in [
            (StepError::Panicked("panic: x".to_owned()), "our worker failed (panic: x)"),
            (StepError::Died { deaths: 3 }, "our worker died in 3 attempts without progress"),
            (StepError::TimeOver, "our time limit"),
            (StepError::Database(sqlx::Error::PoolTimedOut), "our database"),
        ] {
            let text = error.to_string();
            assert!(text.contains(words) && !text.contains("refused:"), "{text}");
        }
    }

    #[test]
    fn the_prefix_of_a_closed_says_what_to_do() {
        assert!(matches!(StepError::of_closed("rate-limited: slow"), StepError::RateLimited(_)));
        assert!(matches!(StepError::of_closed("auth-required: who"), StepError::Auth(_)));
        assert!(matches!(StepError::of_closed("error: disk"), StepError::Closed(_)));
        assert!(matches!(StepError::of_closed("restricted: no"), StepError::Refused(_)));
        assert!(matches!(StepError::of_closed("bye"), StepError::Refused(_)));
    }
}
