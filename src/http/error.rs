//! The errors of the API and their answers.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;
use tender_jobs::provision::relay::{FieldError, MutationError};
use tender_workers::provision::zooid::ZooidError;

/// A request failed. The text goes to the client.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// 400, with the parse error.
    #[error("the body is not JSON: {0}")]
    BadJson(String),
    /// 401, with the reason.
    #[error("not authenticated: {0}")]
    Unauthenticated(&'static str),
    /// 404. A relay of another tenant is also answered with 404.
    #[error("not found")]
    NotFound,
    /// 405.
    #[error("method not allowed for this path; see /openapi.json")]
    MethodNotAllowed,
    /// 409, with the reason.
    #[error("{0}")]
    Conflict(String),
    /// 413.
    #[error("the body is longer than 64 KiB")]
    TooLarge,
    /// 422, with the problem of each invalid field.
    #[error("{}", join(.0))]
    Invalid(Vec<FieldError>),
    /// 429, with the wait in seconds.
    #[error("too many requests: try again in {0} s")]
    TooManyRequests(u64),
    /// 500. The log has the cause.
    #[error("internal error; the server's log has the cause")]
    Internal,
    /// 502: a request to zooid failed.
    #[error("{0}")]
    Zooid(String),
    /// 503, with the reason.
    #[error("{0}")]
    Unavailable(&'static str),
}

fn join(problems: &[FieldError]) -> String {
    let each = problems.iter().map(|problem| format!("{} {}", problem.field, problem.problem));
    each.collect::<Vec<_>>().join("; ")
}

impl ApiError {
    fn status(&self) -> StatusCode {
        match self {
            Self::BadJson(_) => StatusCode::BAD_REQUEST,
            Self::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
            Self::NotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Conflict(_) => StatusCode::CONFLICT,
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Invalid(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::TooManyRequests(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Internal => StatusCode::INTERNAL_SERVER_ERROR,
            Self::Zooid(_) => StatusCode::BAD_GATEWAY,
            Self::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response =
            (self.status(), Json(json!({ "error": self.to_string() }))).into_response();
        let headers = response.headers_mut();
        match self {
            Self::TooManyRequests(seconds) => {
                headers.insert(header::RETRY_AFTER, seconds.into());
            }
            Self::Unauthenticated(_) => {
                headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Nostr"));
            }
            _ => {}
        }
        response
    }
}

/// Maps a database error to 503 or 500. The text of the error goes to the log only.
impl From<sqlx::Error> for ApiError {
    fn from(error: sqlx::Error) -> Self {
        tracing::error!(%error, "a request failed: database error");
        // 25006: a replica, or a server in read-only mode. 53100: disk full. 57P0x: shutdown or
        // startup.
        let code = error.as_database_error().and_then(sqlx::error::DatabaseError::code);
        match code.as_deref() {
            Some("25006") => {
                return Self::Unavailable(
                    "the database is read-only; nothing was changed, try again later",
                );
            }
            Some("53100") => {
                return Self::Unavailable(
                    "the database's disk is full; nothing was changed, try again later",
                );
            }
            Some("57P01" | "57P02" | "57P03") => {
                return Self::Unavailable("the database does not answer; try again");
            }
            _ => {}
        }
        match error {
            sqlx::Error::PoolTimedOut | sqlx::Error::Io(_) | sqlx::Error::PoolClosed => {
                Self::Unavailable("the database does not answer; try again")
            }
            _ => Self::Internal,
        }
    }
}

impl From<MutationError> for ApiError {
    fn from(error: MutationError) -> Self {
        match error {
            MutationError::NotFound(_) => Self::NotFound,
            MutationError::HostTaken(_)
            | MutationError::Delinquent
            | MutationError::Deleting(_) => Self::Conflict(error.to_string()),
            MutationError::QuotaUsedUp(most) => {
                let problem = format!(
                    "has {most} relays already, which is the limit: delete one, or ask the operator"
                );
                Self::Invalid(vec![FieldError::new("tenant_pubkey", problem)])
            }
            MutationError::TooSoon(wait) => Self::TooManyRequests(wait),
            MutationError::Database(error) => error.into(),
        }
    }
}

impl From<ZooidError> for ApiError {
    fn from(error: ZooidError) -> Self {
        tracing::warn!(%error, "a request failed: zooid error");
        Self::Zooid(error.to_string())
    }
}
