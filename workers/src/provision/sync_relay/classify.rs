//! The failure for an error of a request. Only this module decides which errors are transient, and which
//! leave open whether zooid applied the request. Source: `docs/adr/0004-permanent-failures.md`.

use reqwest::StatusCode;
use tender_jobs::provision::{Failure, Reached, relay::FailureKind};

use crate::provision::zooid::ZooidError;

/// Returns the failure for an error of a request.
pub(super) fn classify(error: &ZooidError) -> Failure {
    let status = error.status().map(|status| status.as_u16());
    let failure =
        |kind, reached| Failure { status, reached, ..Failure::new(kind, &error.to_string()) };
    match error {
        ZooidError::Refused { status, retry_after, .. } => {
            let asks_to_wait = matches!(status.as_u16(), 429 | 503);
            Failure {
                retry_after: retry_after.filter(|_| asks_to_wait),
                ..failure(kind_of(*status), reached_by(error, *status))
            }
        }
        ZooidError::NotFound => failure(FailureKind::Transient, Reached::Answered),
        ZooidError::WrongServer { .. } => failure(FailureKind::Transient, Reached::Outage),
        ZooidError::KeyRefused { .. } => failure(FailureKind::Transient, Reached::RefusedKey),
        ZooidError::Unreachable(_) => failure(FailureKind::Transient, Reached::Down),
        ZooidError::Unanswered { is_timeout, .. } => {
            failure(FailureKind::Transient, Reached::Unanswered { is_timeout: *is_timeout })
        }
    }
}

fn kind_of(status: StatusCode) -> FailureKind {
    match status.as_u16() {
        400 | 405 | 409 | 413 | 422 => FailureKind::Permanent,
        _ => FailureKind::Transient,
    }
}

fn reached_by(error: &ZooidError, status: StatusCode) -> Reached {
    if error.may_be_applied_later() {
        let is_timeout =
            matches!(status, StatusCode::GATEWAY_TIMEOUT | StatusCode::REQUEST_TIMEOUT);
        return Reached::Unanswered { is_timeout };
    }
    // Whatever the relay, a redirection or a refusal of the caller comes back: from zooid, or from a proxy
    // in front of it.
    let is_of_the_instance = status.is_redirection() || matches!(status.as_u16(), 401 | 403 | 407);
    if status.is_server_error() || is_of_the_instance { Reached::Outage } else { Reached::Answered }
}
