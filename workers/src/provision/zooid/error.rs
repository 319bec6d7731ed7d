//! What a request to zooid can fail with. Each variant is named for the reaction that it asks for.

use std::time::Duration;

use reqwest::StatusCode;

/// A request to zooid failed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ZooidError {
    /// zooid, or a proxy in front of it, answered with a status other than 2xx.
    #[error("zooid answered {status}: {message}")]
    Refused {
        /// The status of the answer.
        status: StatusCode,
        /// The text of the answer, bounded and without secrets.
        message: String,
        /// The delay that the answer asked for in `Retry-After`.
        retry_after: Option<Duration>,
        /// Whether the answer has zooid's JSON. Otherwise a proxy answered.
        is_from_zooid: bool,
    },
    /// zooid says that it does not have the relay.
    #[error("zooid answered: relay not found")]
    NotFound,
    /// The address is not that of zooid's API: it answered 404, but not in zooid's JSON. Whether the
    /// relay exists is unknown.
    #[error("{message}")]
    WrongServer {
        /// Names the URL, the answer and the remedy.
        message: String,
    },
    /// zooid refused our key or our signature, with 401 or 403 in its own words.
    #[error("{message}")]
    KeyRefused {
        /// 401 for the signature, 403 for the key.
        status: StatusCode,
        /// Names the answer and the remedy.
        message: String,
    },
    /// Nothing was sent: the request could not be made, or no connection could be opened. The text
    /// gives the reason.
    #[error("{0}")]
    Unreachable(String),
    /// The request may have been sent, and whether zooid applies it is unknown.
    #[error("{message}")]
    Unanswered {
        /// The reason.
        message: String,
        /// Whether the answer did not come in time. Otherwise it broke off or was unreadable.
        is_timeout: bool,
    },
}

impl ZooidError {
    /// Returns the status of the answer, if there was one.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } | Self::KeyRefused { status, .. } => Some(*status),
            Self::NotFound | Self::WrongServer { .. } => Some(StatusCode::NOT_FOUND),
            Self::Unreachable(_) | Self::Unanswered { .. } => None,
        }
    }

    /// Whether another relay has the id, the schema or the host.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Refused { status: StatusCode::CONFLICT, .. })
    }

    /// Whether zooid may still apply the request later: there was no answer, or a proxy answered that
    /// it gave up. zooid runs a request to its end even if the client leaves.
    pub fn may_be_applied_later(&self) -> bool {
        match self {
            Self::Unanswered { .. } => true,
            Self::Refused { status, is_from_zooid, .. } => {
                let gave_up = status.is_server_error() || *status == StatusCode::REQUEST_TIMEOUT;
                gave_up && !is_from_zooid
            }
            _ => false,
        }
    }
}
