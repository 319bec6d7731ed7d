//! What the routes below `/api/v1` share: bearer tokens, and errors as existing clients expect them.

use axum::{
    Extension, Json,
    body::to_bytes,
    extract::{OriginalUri, Request},
    http::{HeaderMap, Method, StatusCode, header::AUTHORIZATION},
    middleware::Next,
    response::{IntoResponse, Response},
};
use serde_json::json;
use tender_jobs::console::{
    api_key::Holder,
    operator::{Entry, Outcome},
};
use uuid::Uuid;

use super::{Api, ApiError, MAX_BODY, auth::address_of, tokens::holder};

/// A request failed.
pub(super) enum V1Error {
    /// 400, with the reason.
    Bad(&'static str),
    /// 401.
    Unauthorized,
    /// 404.
    NotFound,
    /// 422, with the problems.
    Invalid(Vec<String>),
    /// An error that is answered as by the other routes.
    Other(ApiError),
}

impl IntoResponse for V1Error {
    fn into_response(self) -> Response {
        let (status, body) = match self {
            Self::Bad(words) => (StatusCode::BAD_REQUEST, json!({ "error": words })),
            Self::Unauthorized => {
                (StatusCode::UNAUTHORIZED, json!({ "error": "Invalid or missing API key" }))
            }
            Self::NotFound => (StatusCode::NOT_FOUND, json!({ "error": "Resource not found" })),
            Self::Invalid(errors) => {
                (StatusCode::UNPROCESSABLE_ENTITY, json!({ "errors": errors }))
            }
            Self::Other(error) => return error.into_response(),
        };
        (status, Json(body)).into_response()
    }
}

impl From<sqlx::Error> for V1Error {
    fn from(error: sqlx::Error) -> Self {
        Self::Other(error.into())
    }
}

pub(super) type Answer = Result<Response, V1Error>;

/// Reads the body up to [`MAX_BODY`], verifies the token, and counts the request against the rate
/// limit of the key, or of the address if it failed.
pub(super) async fn authenticate(
    Extension(api): Extension<Api>,
    request: Request,
    next: Next,
) -> Answer {
    let (mut parts, body) = request.into_parts();
    let body = to_bytes(body, MAX_BODY).await.map_err(|_| V1Error::Other(ApiError::TooLarge))?;
    let Some(secret) = &api.config.key_secret else {
        return Err(V1Error::Other(ApiError::Unavailable(
            "this API is disabled: API_KEY_HMAC_SECRET is not set on this server",
        )));
    };
    let (token, address) = (bearer(&parts.headers), address_of(&parts, &api));
    let holder = holder(&api, secret, token, &address).await.map_err(V1Error::Other)?;
    let holder = holder.ok_or(V1Error::Unauthorized)?;
    // The path of a nested router lacks the prefix.
    let whole = parts.extensions.get::<OriginalUri>().map_or(&parts.uri, |OriginalUri(uri)| uri);
    let (method, path) = (parts.method.clone(), whole.path().to_owned());
    parts.extensions.insert(holder.clone());
    let response = next.run(Request::from_parts(parts, body.into())).await;
    Ok(match method {
        Method::GET | Method::HEAD => response,
        _ => recorded(&api, &holder, &format!("{method} {path}"), response).await,
    })
}

/// Returns the name of a key in the operators' record.
pub(super) fn who(holder: &Holder) -> String {
    format!("key {}", holder.name)
}

/// The longest answer of an error that is read for the record.
const LONGEST_ANSWER: usize = 16 * 1024;

/// Records a request to change something that was refused or has failed. What was changed has been recorded with
/// the change.
async fn recorded(api: &Api, holder: &Holder, asked: &str, response: Response) -> Response {
    let status = response.status();
    let outcome = match status {
        status if status.is_server_error() => Outcome::Failed,
        status if status.is_client_error() => Outcome::Refused,
        _ => return response,
    };
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, LONGEST_ANSWER).await.unwrap_or_default();
    let words = format!("answered {}: {}", status.as_u16(), String::from_utf8_lossy(&body));
    let who = who(holder);
    let entry = Entry::new(&who, "api_request", asked, &words).ended(outcome);
    if let Err(error) = entry.record(&api.db).await {
        tracing::warn!(who, asked, %error, "could not record a request that was refused or failed");
    }
    Response::from_parts(parts, body.into())
}

/// Returns the bearer token of a request.
pub(super) fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
}

/// Returns the id in a path.
pub(super) fn id_of(text: &str) -> Result<Uuid, V1Error> {
    text.parse().map_err(|_| V1Error::NotFound)
}
